{{/* Pieces of network policies. */}}

{{/* Peers: pods of these parts. dict "root" . "parts" (list "gateway") */}}
{{- define "memoturn.from.parts" -}}
{{- $there := fromJsonArray (include "memoturn.parts" .root) -}}
{{- range $part := .parts }}
{{- if has $part $there }}
- podSelector:
    matchLabels:
      {{- include "memoturn.selector" (dict "root" $.root "part" $part) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* A rule to a part at a port: dict "root" . "part" "etcd" "port" 2379 */}}
{{- define "memoturn.to.part" -}}
- to:
    {{- include "memoturn.from.parts" (dict "root" .root "parts" (list .part)) | trim | nindent 4 }}
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- end }}

{{/* A rule to what is outside, anywhere unless peers are named: dict "to" (list) "ports" (list 443) */}}
{{- define "memoturn.to.outside" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "memoturn.to.dns" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The port of an address: its own, or that of its scheme. */}}
{{- define "memoturn.port" -}}
{{- $host := get (urlParse .) "host" -}}
{{- default (ternary "80" "443" (hasPrefix "http://" .)) (regexFind ":[0-9]+$" $host | trimPrefix ":") }}
{{- end }}

{{- define "memoturn.to.store" -}}
{{- $store := .Values.objectStorage -}}
{{- if eq $store.backend "minio" }}
{{ include "memoturn.to.part" (dict "root" . "part" "minio" "port" 9000) }}
{{- else if ne $store.backend "file" }}
{{- $endpoint := ternary $store.s3.endpoint "" (eq $store.backend "s3") }}
{{ include "memoturn.to.outside" (dict "to" .Values.networkPolicy.objectStorageTo "ports" (list (include "memoturn.port" (default "https://" $endpoint)))) }}
{{- end }}
{{- end }}

{{/* Where a role is asked for instead of keys: addresses of the machine itself, that no other policy opens. */}}
{{- define "memoturn.to.role" -}}
{{- $store := .Values.objectStorage -}}
{{- if and (eq $store.backend "gs") (not $store.gs.existingSecret) }}
# Google's metadata server, at either of its ports: by the network plugin.
{{ include "memoturn.to.outside" (dict "to" (list (dict "ipBlock" (dict "cidr" "169.254.169.254/32"))) "ports" (list 80)) }}
{{ include "memoturn.to.outside" (dict "to" (list (dict "ipBlock" (dict "cidr" "169.254.169.252/32"))) "ports" (list 988)) }}
{{- else if and (eq $store.backend "s3") (not $store.s3.existingSecret) }}
# The agent of EKS pod identities.
{{ include "memoturn.to.outside" (dict "to" (list (dict "ipBlock" (dict "cidr" (ternary "fd00:ec2::23/128" "169.254.170.23/32" (eq .Values.ipFamily "IPv6"))))) "ports" (list 80)) }}
{{- end }}
{{- end }}

{{- define "memoturn.to.catalog" -}}
{{- if .Values.postgres.enabled }}
{{ include "memoturn.to.part" (dict "root" . "part" "postgres" "port" 5432) }}
{{- else if .Values.catalog.existingSecret }}
{{ include "memoturn.to.outside" (dict "to" .Values.networkPolicy.postgresTo "ports" (list (include "memoturn.number" .Values.catalog.port))) }}
{{- end }}
{{- end }}

{{- define "memoturn.to.etcd" -}}
{{- $etcd := .Values.cluster.etcd -}}
{{- if .Values.etcd.enabled }}
{{ include "memoturn.to.part" (dict "root" . "part" "etcd" "port" 2379) }}
{{- else if $etcd.enabled }}
{{- $ports := list }}
{{- if $etcd.endpoints }}
{{- $scheme := ternary "http://" "https://" (hasPrefix "http://" $etcd.endpoints) }}
{{- range splitList "," $etcd.endpoints }}
{{- $ports = append $ports (include "memoturn.port" (printf "%s%s" $scheme (trimPrefix $scheme .))) }}
{{- end }}
{{- else }}
{{- $ports = list (include "memoturn.number" $etcd.port) }}
{{- end }}
{{ include "memoturn.to.outside" (dict "to" .Values.networkPolicy.etcdTo "ports" (uniq $ports)) }}
{{- end }}
{{- end }}

{{/* To whom texts are sent: the providers' own addresses and those that are set. */}}
{{- define "memoturn.to.ai" -}}
{{- $ports := list -}}
{{- $ai := .Values.ai -}}
{{- range $of := list "embed" "extract" "assistant" }}
{{- $provider := get $ai (printf "%sProvider" $of) | default "" }}
{{- $url := get $ai (printf "%sBaseUrl" $of) | default "" }}
{{- if and $url (not (has $provider (list "off" "local"))) }}
{{- $ports = append $ports (include "memoturn.port" $url) }}
{{- else if or (has $provider (list "openai" "voyage" "anthropic")) (and (not $provider) $ai.existingSecret) }}
{{- $ports = append $ports "443" }}
{{- end }}
{{- end }}
{{- if $ports }}
{{ include "memoturn.to.outside" (dict "to" .Values.networkPolicy.aiTo "ports" (uniq $ports)) }}
{{- end }}
{{- end }}

{{/* Who may come: dict "root" . "parts" (list of parts) "port" 8080 "isOpen" true (clients from outside) "isScraped" true */}}
{{- define "memoturn.ingress" -}}
{{- $policy := .root.Values.networkPolicy -}}
ingress:
{{- if and .isOpen $policy.allowExternalIngress }}
  - ports:
      - {protocol: TCP, port: {{ .port }}}
{{- else }}
{{- $from := include "memoturn.from.parts" (dict "root" .root "parts" .parts) | fromYamlArray -}}
{{- if .isOpen }}{{ $from = concat $from (default list $policy.extraIngressFrom) }}{{ end }}
{{- if .isScraped }}{{ $from = concat $from (default list $policy.metricsFrom) }}{{ end }}
{{- if $from }}
  - ports:
      - {protocol: TCP, port: {{ .port }}}
    from:
      {{- toYaml $from | nindent 6 }}
{{- else }}
  []
{{- end }}
{{- end }}
{{- end }}

{{/* The head of a policy: all of a part's traffic, both ways, is what it says and nothing else. */}}
{{- define "memoturn.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "memoturn.metadata" (merge (dict "name" (printf "%s-%s" (include "memoturn.fullname" .root) .part)) .) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "memoturn.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}

{{- define "memoturn.to.extra" -}}
{{- if .Values.networkPolicy.allowHttpsEgress }}
{{ include "memoturn.to.outside" (dict "ports" (list 443)) }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
