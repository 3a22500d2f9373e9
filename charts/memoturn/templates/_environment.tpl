{{/* Environments of the programs. What is secret comes by reference; what operators change while pods run is a file. */}}

{{- define "memoturn.listen" -}}
{{- ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}
{{- end }}

{{/* Every value of a section that is set, as its setting: dict "root" . "section" "server" "except" (list). */}}
{{- define "memoturn.env.section" -}}
{{- $table := .root.Files.Get "files/settings.yaml" | fromYaml -}}
{{- $values := get .root.Values .section -}}
{{- range $name, $variable := get $table .section }}
{{- $value := get $values $name }}
{{- if and (not (kindIs "invalid" $value)) (not (has $variable (default list $.except))) (ne (toString $value) "") }}
- name: {{ $variable }}
  value: {{ include "memoturn.setting" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "memoturn.env.secret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}

{{- define "memoturn.env.store" -}}
{{- $store := .Values.objectStorage -}}
{{- $prefix := default "" $store.prefix | trimAll "/" -}}
{{- $path := ternary (printf "/%s" $prefix) "" (ne $prefix "") -}}
- name: MEMOTURN_OBJECT_STORE
{{- if has $store.backend (list "minio" "s3") }}
  value: {{ printf "s3://%s%s" $store.s3.bucket $path | quote }}
- name: AWS_REGION
  value: {{ $store.s3.region | quote }}
{{- if eq $store.backend "minio" }}
- name: AWS_ENDPOINT_URL
  value: {{ printf "http://%s-minio:9000" (include "memoturn.fullname" .) | quote }}
{{ include "memoturn.env.secret" (dict "name" "AWS_ACCESS_KEY_ID" "secret" (printf "%s-minio" (include "memoturn.fullname" .)) "key" "ROOT_USER") }}
{{ include "memoturn.env.secret" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" (printf "%s-minio" (include "memoturn.fullname" .)) "key" "ROOT_PASSWORD") }}
{{- else }}
{{- with $store.s3.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with $store.s3.existingSecret }}
{{ include "memoturn.env.secret" (dict "name" "AWS_ACCESS_KEY_ID" "secret" . "key" "AWS_ACCESS_KEY_ID") }}
{{ include "memoturn.env.secret" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" . "key" "AWS_SECRET_ACCESS_KEY") }}
{{ include "memoturn.env.secret" (dict "name" "AWS_SESSION_TOKEN" "secret" . "key" "AWS_SESSION_TOKEN" "optional" true) }}
{{- end }}
{{- end }}
{{- else if eq $store.backend "gs" }}
  value: {{ printf "gs://%s%s" $store.gs.bucket $path | quote }}
{{- if $store.gs.existingSecret }}
- name: GOOGLE_SERVICE_ACCOUNT
  value: /run/secrets/store/service-account.json
{{- end }}
{{- else if eq $store.backend "az" }}
  value: {{ printf "az://%s%s" $store.az.container $path | quote }}
{{- with $store.az.existingSecret }}
{{ include "memoturn.env.secret" (dict "name" "AZURE_STORAGE_ACCOUNT_NAME" "secret" . "key" "AZURE_STORAGE_ACCOUNT_NAME") }}
{{ include "memoturn.env.secret" (dict "name" "AZURE_STORAGE_ACCOUNT_KEY" "secret" . "key" "AZURE_STORAGE_ACCOUNT_KEY" "optional" true) }}
{{ include "memoturn.env.secret" (dict "name" "AZURE_STORAGE_SAS_TOKEN" "secret" . "key" "AZURE_STORAGE_SAS_TOKEN" "optional" true) }}
{{- end }}
{{- else }}
  value: file:///var/lib/memoturn/objects
{{- end }}
{{- end }}

{{- define "memoturn.env.catalog" -}}
{{- with (include "memoturn.catalogSecret" .) -}}
{{ include "memoturn.env.secret" (dict "name" "MEMOTURN_CATALOG" "secret" . "key" "CATALOG_URL") }}
{{- end }}
{{- end }}

{{- define "memoturn.env.etcd" -}}
{{- $etcd := .Values.cluster.etcd -}}
{{- if $etcd.existingSecret -}}
{{ include "memoturn.env.secret" (dict "name" "MEMOTURN_ETCD" "secret" $etcd.existingSecret "key" "ETCD_URL") }}
{{- else -}}
- name: MEMOTURN_ETCD
  value: {{ default (printf "http://%s-etcd:2379" (include "memoturn.fullname" .)) $etcd.endpoints | quote }}
{{- end }}
{{- if $etcd.caSecret }}
- name: MEMOTURN_ETCD_CA_FILE
  value: /run/secrets/etcd/ca.crt
{{- end }}
{{- with $etcd.prefix }}
- name: MEMOTURN_ETCD_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- with .Values.cluster.leaseTtlSecs }}
- name: MEMOTURN_LEASE_TTL_S
  value: {{ include "memoturn.number" . | quote }}
{{- end }}
{{- end }}

{{/* A node, or the control plane: dict "root" . "part" "dataplane" "values" .Values.dataplane. */}}
{{- define "memoturn.env.node" -}}
{{- $limit := dig "limits" "memory" "" (default dict .values.resources) -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: MEMOTURN_NODE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: MEMOTURN_ADVERTISE
  value: {{ ternary "http://[$(POD_IP)]:8080" "http://$(POD_IP):8080" (eq .root.Values.ipFamily "IPv6") | quote }}
- name: MEMOTURN_LISTEN
  value: {{ printf "%s:8080" (include "memoturn.listen" .root) | quote }}
- name: MEMOTURN_DATA_DIR
  value: /var/lib/memoturn
{{ include "memoturn.env.store" .root }}
{{- with (include "memoturn.env.catalog" .root) }}
{{ . }}
{{- end }}
- name: MEMOTURN_AUTH
  value: "on"
- name: MEMOTURN_PLATFORM_KEY_FILE
  value: /run/secrets/memoturn/platform
- name: MEMOTURN_CLUSTER_KEY_FILE
  value: /run/secrets/memoturn/cluster
{{- if not .root.Values.server.persistAuthKey }}
- name: MEMOTURN_AUTH_KEY_FILE
  value: /run/secrets/memoturn/signing
{{- end }}
{{- if eq .part "dataplane" }}
{{- if .root.Values.cluster.etcd.enabled }}
{{ include "memoturn.env.etcd" .root }}
{{- end }}
- name: MEMOTURN_HOT_CAP
  value: {{ include "memoturn.number" .values.hotHandleCap | quote }}
{{- end }}
{{- /* What follows from the sizes of the pod; what is set instead is about the nodes. */}}
{{- $server := ternary .root.Values.server dict (eq .part "dataplane") }}
{{- $sizes := list "MEMOTURN_MEMORY_BUDGET_BYTES" "MEMOTURN_RECALL_CACHE_BYTES" "MEMOTURN_DISK_BUDGET_BYTES" }}
{{- if and $limit (kindIs "invalid" $server.memoryBudgetBytes) }}
- name: MEMOTURN_MEMORY_BUDGET_BYTES
  value: {{ div (include "memoturn.bytes" $limit | int64) 2 | quote }}
{{- end }}
{{- if and $limit (kindIs "invalid" $server.recallCacheBytes) }}
- name: MEMOTURN_RECALL_CACHE_BYTES
  value: {{ div (include "memoturn.bytes" $limit | int64) 8 | quote }}
{{- end }}
{{- if kindIs "invalid" $server.diskBudgetBytes }}
- name: MEMOTURN_DISK_BUDGET_BYTES
  value: {{ div (mul (include "memoturn.bytes" .values.cacheSize | int64) 3) 4 | quote }}
{{- end }}
{{- $except := ternary list (list "MEMOTURN_PERSIST_AUTH_KEY") .root.Values.server.persistAuthKey }}
{{- if ne .part "dataplane" }}{{ $except = concat $except $sizes }}{{ end }}
{{- include "memoturn.env.section" (dict "root" .root "section" "server" "except" $except) }}
{{- if eq .part "dataplane" }}
{{- include "memoturn.env.section" (dict "root" .root "section" "ai") }}
{{- with .root.Values.ai.existingSecret }}
{{- range list "EMBED_API_KEY" "EXTRACT_API_KEY" "ASSISTANT_API_KEY" }}
{{ include "memoturn.env.secret" (dict "name" (printf "MEMOTURN_%s" .) "secret" $.root.Values.ai.existingSecret "key" . "optional" true) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "memoturn.env.gateway" -}}
{{- $table := .Files.Get "files/settings.yaml" | fromYaml -}}
{{- $limit := dig "limits" "memory" "" (default dict .Values.gateway.resources) -}}
- name: MEMOTURN_GATEWAY_LISTEN
  value: {{ printf "%s:8080" (include "memoturn.listen" .) | quote }}
- name: MEMOTURN_AUTH
  value: "on"
{{ include "memoturn.env.etcd" . }}
{{- include "memoturn.env.section" (dict "root" . "section" "gateway") }}
{{- if and $limit (kindIs "invalid" .Values.gateway.bodyBytes) }}
- name: MEMOTURN_GATEWAY_BODY_BYTES
  value: {{ div (include "memoturn.bytes" $limit | int64) 4 | quote }}
{{- end }}
{{- $shared := get $table "gatewayShares" }}
{{- $others := list }}
{{- range $section := list "server" "ai" }}
{{- range $variable := values (get $table $section) }}
{{- if not (has $variable $shared) }}{{ $others = append $others $variable }}{{ end }}
{{- end }}
{{- end }}
{{- include "memoturn.env.section" (dict "root" . "section" "server" "except" $others) }}
{{- include "memoturn.env.section" (dict "root" . "section" "ai" "except" $others) }}
{{- end }}

{{/* The schema of the catalog takes its address and nothing else: no keys, no bucket. */}}
{{- define "memoturn.env.migrate" -}}
- name: MEMOTURN_DATA_DIR
  value: /tmp
{{ include "memoturn.env.catalog" . }}
- name: MEMOTURN_LOG_FORMAT
  value: {{ default "json" .Values.server.logFormat }}
{{- end }}

{{- define "memoturn.env.mcp" -}}
- name: MEMOTURN_URL
  value: {{ printf "http://%s:%s" (include "memoturn.fullname" .) (include "memoturn.number" .Values.service.port) | quote }}
{{- end }}
