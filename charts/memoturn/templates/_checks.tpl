{{/* What cannot work is refused here, before anything is installed: all of it at once, each with the next step. */}}

{{- define "memoturn.checks" -}}
{{- $problems := list -}}
{{- range $check := list "names" "cluster" "catalog" "auth" "store" "sizes" "stops" "settings" "ai" "extraEnv" "pods" "rest" -}}
{{- range $line := splitList "\n" (include (printf "memoturn.check.%s" $check) $) -}}
{{- with trim $line }}{{ $problems = append $problems . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "these values cannot work:\n  - %s" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end }}

{{/* The name of a Service is narrower than that of a release, which may begin with a digit and have dots. */}}
{{- define "memoturn.check.names" }}
{{- $name := include "memoturn.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{ $name }}, which follows from the release {{ .Release.Name }}, is no name of a Service (a small letter first, then small letters, digits and -); set fullnameOverride
{{ end }}
{{- end }}

{{- define "memoturn.check.cluster" }}
{{- $etcd := .Values.cluster.etcd }}
{{- $sources := 0 }}
{{- range list $etcd.endpoints $etcd.existingSecret (ternary "own" "" .Values.etcd.enabled) }}{{ if . }}{{ $sources = add1 $sources }}{{ end }}{{ end }}
{{- if and (gt (int .Values.dataplane.replicas) 1) (not $etcd.enabled) }}
dataplane.replicas={{ int .Values.dataplane.replicas }} takes cluster.etcd.enabled=true: without etcd each node would believe that it owns every database
{{ end }}
{{- if and $etcd.enabled (ne (int $sources) 1) }}
cluster.etcd.enabled=true takes exactly one of cluster.etcd.endpoints, cluster.etcd.existingSecret and etcd.enabled=true; {{ $sources }} are set
{{ end }}
{{- if and (not $etcd.enabled) (gt (int $sources) 0) }}
cluster.etcd.endpoints, cluster.etcd.existingSecret and etcd.enabled are for cluster.etcd.enabled=true
{{ end }}
{{- $startup := .Values.dataplane.probes.startup }}
{{- $patience := mul (int (default 10 $startup.periodSeconds)) (int (default 3 $startup.failureThreshold)) }}
{{- $ttl := int (default 10 .Values.cluster.leaseTtlSecs) }}
{{- if and $etcd.enabled (lt $patience (add $ttl 20)) }}
dataplane.probes.startup lets a start take {{ $patience }} s, and a pod that is made anew waits for the lease of the one before (cluster.leaseTtlSecs, {{ $ttl }} s): raise its failureThreshold, to {{ add $ttl 20 }} s in all
{{ end }}
{{- if and $etcd.caSecret .Values.etcd.enabled }}
cluster.etcd.caSecret is for an etcd of your own with https://; the one of etcd.enabled has no TLS
{{ end }}
{{- if and .Values.gateway.enabled (not $etcd.enabled) }}
gateway.enabled=true takes cluster.etcd.enabled=true: it is where a gateway learns which node owns what; a single node needs none
{{ end }}
{{- end }}

{{- define "memoturn.check.catalog" }}
{{- $shared := include "memoturn.catalogSecret" . }}
{{- if and .Values.postgres.enabled .Values.catalog.existingSecret }}
catalog.existingSecret names a Postgres of your own, and postgres.enabled=true brings another; take one of them
{{ end }}
{{- if and .Values.cluster.etcd.enabled (not $shared) }}
cluster.etcd.enabled=true takes a catalog that the nodes share: catalog.existingSecret with CATALOG_URL, or postgres.enabled=true for trying out
{{ end }}
{{- if and .Values.controlPlane.enabled (not $shared) }}
controlPlane.enabled=true takes a catalog in Postgres (catalog.existingSecret, or postgres.enabled=true); a single node serves its own
{{ end }}
{{- end }}

{{- define "memoturn.check.auth" }}
{{- if not .Values.auth.enabled }}
auth.enabled=false: pods are reached by others, and a node that asks nobody for a credential serves only its own machine, so it would not start
{{ end }}
{{- if .Values.auth.existingSecret }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace .Values.auth.existingSecret }}
{{- if $secret }}
{{- $needed := list "PLATFORM_KEY" "CLUSTER_KEY" }}
{{- if not .Values.server.persistAuthKey }}{{ $needed = append $needed "AUTH_KEY" }}{{ end }}
{{- range $needed }}
{{- if not (get (default dict $secret.data) .) }}
the secret {{ $.Values.auth.existingSecret }} of auth.existingSecret has no {{ . }}
{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "memoturn.check.store" }}
{{- $store := .Values.objectStorage }}
{{- if and (eq $store.backend "minio") (not .Values.minio.enabled) }}
objectStorage.backend=minio is the MinIO of this chart; set minio.enabled=true, or objectStorage.backend=s3 with objectStorage.s3.endpoint for one of your own
{{ end }}
{{- if and (has $store.backend (list "minio" "s3")) (not $store.s3.bucket) }}
objectStorage.backend={{ $store.backend }} takes objectStorage.s3.bucket
{{ end }}
{{- if and (eq $store.backend "gs") (not $store.gs.bucket) }}
objectStorage.backend=gs takes objectStorage.gs.bucket
{{ end }}
{{- if and (eq $store.backend "az") (not $store.az.container) }}
objectStorage.backend=az takes objectStorage.az.container
{{ end }}
{{- if and (eq $store.backend "file") (or .Values.cluster.etcd.enabled (gt (int .Values.dataplane.replicas) 1) .Values.controlPlane.enabled) }}
objectStorage.backend=file is a folder of one pod, gone with it, which others cannot share; take minio, s3, gs or az
{{ end }}
{{- end }}

{{- define "memoturn.check.sizes" }}
{{- range $part, $values := dict "dataplane" .Values.dataplane "controlPlane" .Values.controlPlane }}
{{- $limit := dig "limits" "memory" "" (default dict $values.resources) }}
{{- if $limit }}
{{- if lt (include "memoturn.bytes" $limit | int64) 402653184 }}
{{ $part }}.resources.limits.memory={{ $limit }} is below 384Mi: a node takes about 115 MiB before it holds anything
{{ end }}
{{- if and (eq $part "dataplane") (gt (include "memoturn.number" (default 0 $.Values.server.memoryBudgetBytes) | int64) (include "memoturn.bytes" $limit | int64)) }}
server.memoryBudgetBytes is above {{ $part }}.resources.limits.memory={{ $limit }}: the pod would be killed before the node holds back
{{ end }}
{{- end }}
{{- if eq $part "dataplane" }}
{{- $all := include "memoturn.bytes" $values.cacheSize | int64 }}
{{- $budget := include "memoturn.number" (default (div (mul $all 3) 4) $.Values.server.diskBudgetBytes) | int64 }}
{{- $import := include "memoturn.number" (default 268435456 $.Values.server.maxImportBytes) | int64 }}
{{- $spool := include "memoturn.number" (default 67108864 $.Values.server.auditSpoolBytes) | int64 }}
{{- if and (ge $all $budget) (lt (sub $all $budget) (add (mul 3 $import) $spool)) }}
dataplane.cacheSize={{ $values.cacheSize }} leaves {{ sub $all $budget }} bytes beside the cache, which an import (three times server.maxImportBytes) and audit events (server.auditSpoolBytes) may exceed: the pod would be evicted
{{ end }}
{{- else if lt (include "memoturn.bytes" $values.cacheSize | int64) 268435456 }}
{{ $part }}.cacheSize={{ $values.cacheSize }} is below 256Mi
{{ end }}
{{- if and (eq $part "dataplane") (gt (include "memoturn.number" (default 0 $.Values.server.diskBudgetBytes) | int64) (include "memoturn.bytes" $values.cacheSize | int64)) }}
server.diskBudgetBytes is above {{ $part }}.cacheSize={{ $values.cacheSize }}: the pod would be evicted before the node makes room
{{ end }}
{{- end }}
{{- end }}

{{/* How long a stop takes at most (docs/operations.md): 10 s for a node, 5 s for a gateway, 20 s for the MCP server. */}}
{{- define "memoturn.check.stops" }}
{{- range $part, $bound := dict "dataplane" 10 "gateway" 5 "controlPlane" 10 "mcp" 20 }}
{{- $values := get $.Values $part }}
{{- $least := add (int $values.preStopSleepSeconds) $bound }}
{{- if lt (int $values.terminationGracePeriodSeconds) (int $least) }}
{{ $part }}.terminationGracePeriodSeconds={{ int $values.terminationGracePeriodSeconds }} is below {{ $least }}: preStopSleepSeconds, and the {{ $bound }} s that a stop takes at most
{{ end }}
{{- end }}
{{- end }}

{{- define "memoturn.check.settings" }}
{{- $server := .Values.server }}
{{- if and (has "*" (default list $server.corsOrigins)) (gt (len $server.corsOrigins) 1) }}
server.corsOrigins is either * or origins, not both: * lets every page in
{{ end }}
{{- $warm := default 60 $server.warmAfterSecs | float64 }}
{{- $cold := default 3600 $server.coldAfterSecs | float64 }}
{{- if lt $cold $warm }}
server.coldAfterSecs is below server.warmAfterSecs: a profile turns warm before it turns cold
{{ end }}
{{- $fine := ternary 86400 $server.pitrRetentionSecs (kindIs "invalid" $server.pitrRetentionSecs) | float64 }}
{{- $coarse := ternary 2592000 $server.pitrSnapshotRetentionSecs (kindIs "invalid" $server.pitrSnapshotRetentionSecs) | float64 }}
{{- if and (gt $fine 0.0) (lt $coarse $fine) }}
server.pitrSnapshotRetentionSecs is below server.pitrRetentionSecs: history is kept at every commit first, then at one an hour
{{ end }}
{{- end }}

{{- define "memoturn.check.ai" }}
{{- $ai := .Values.ai }}
{{- $embed := default "" $ai.embedProvider }}
{{- if eq $embed "local" }}
{{- if or $ai.embedBaseUrl (and $ai.embedModel (ne $ai.embedModel "all-minilm-l6-v2")) (and $ai.embedDimensions (ne (int $ai.embedDimensions) 384)) }}
ai.embedProvider=local is all-minilm-l6-v2 with 384 dimensions; leave ai.embedBaseUrl, ai.embedModel and ai.embedDimensions away
{{ end }}
{{- end }}
{{- range $of := list "embed" "extract" "assistant" }}
{{- $provider := get $ai (printf "%sProvider" $of) | default "" }}
{{- $inherits := and (eq $of "assistant") (eq $provider (default "" $ai.extractProvider)) }}
{{- if and (has $provider (list "openai" "voyage" "anthropic")) (not $ai.existingSecret) (not (get $ai (printf "%sBaseUrl" $of))) (not (and $inherits $ai.extractBaseUrl)) }}
ai.{{ $of }}Provider={{ $provider }} takes ai.existingSecret with {{ upper $of }}_API_KEY, or the ai.{{ $of }}BaseUrl of an endpoint that needs none
{{ end }}
{{- if and (ne $of "embed") (eq $provider "openai") (not (get $ai (printf "%sModel" $of))) (not (and $inherits $ai.extractModel)) }}
ai.{{ $of }}Provider=openai takes ai.{{ $of }}Model: there is none that every endpoint has
{{ end }}
{{- end }}
{{- end }}

{{/* A name that nobody reads would end the start of every pod, and of one that is there twice one value is lost. */}}
{{- define "memoturn.check.extraEnv" }}
{{- range $part := list "dataplane" "gateway" "controlPlane" "mcp" }}
{{- $seen := list }}
{{- range $env := (get $.Values $part).extraEnv }}
{{- $problem := include "memoturn.problemOfEnv" (dict "root" $ "part" $part "name" $env.name) }}
{{- if has $env.name $seen }}{{ $problem = "is there twice" }}{{ end }}
{{- $seen = append $seen $env.name }}
{{- if $problem }}
{{ $part }}.extraEnv: {{ $env.name }} {{ $problem }}
{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What is wrong with a variable of extraEnv, nothing if all is well: dict "root" . "part" "gateway" "name" "MEMOTURN_..." */}}
{{- define "memoturn.problemOfEnv" -}}
{{- $table := .root.Files.Get "files/settings.yaml" | fromYaml -}}
{{- $value := "" -}}
{{- $isSet := false -}}
{{- range $section := list "server" "ai" "gateway" -}}
{{- range $key, $variable := get $table $section -}}
{{- if eq $variable $.name -}}
{{- $value = printf "%s.%s" $section $key -}}
{{- $isSet = not (kindIs "invalid" (get (get $.root.Values $section) $key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $made := list -}}
{{- range (include "memoturn.env.of" . | fromYamlArray) }}{{ $made = append $made .name }}{{ end -}}
{{- $isNode := ne .part "mcp" -}}
{{- $known := ternary (or $value (has .name $table.owned)) (has .name $table.mcp) $isNode -}}
{{- if and $isNode $isSet -}}
is set by {{ $value }}
{{- else if and $isNode $value (has .name $made) -}}
is set by the chart; {{ $value }} goes before that
{{- else if or (has .name $made) (has .name (ternary $table.owned $table.mcpOwned $isNode)) -}}
is set by the chart
{{- else if and (hasPrefix "MEMOTURN_" .name) (not $known) -}}
is no setting; see the table of values
{{- end -}}
{{- end }}

{{/* The variables of a part, by its name among the values: dict "root" . "part" "controlPlane" */}}
{{- define "memoturn.env.of" -}}
{{- if eq .part "gateway" -}}
{{- include "memoturn.env.gateway" .root }}
{{- else if eq .part "mcp" -}}
{{- include "memoturn.env.mcp" .root }}
{{- else -}}
{{- include "memoturn.env.node" (dict "root" .root "part" (kebabcase .part) "values" (get .root.Values .part)) }}
{{- end }}
{{- end }}

{{/* What pods are found by, and the volumes that are the chart's. */}}
{{- define "memoturn.check.pods" }}
{{- $labels := include "memoturn.labels" (dict "root" . "part" "") | fromYaml }}
{{- range $part := list "dataplane" "gateway" "controlPlane" "mcp" }}
{{- $values := get $.Values $part }}
{{- range $label := keys (default dict $values.podLabels) | sortAlpha }}
{{- if hasKey $labels $label }}
{{ $part }}.podLabels: {{ $label }} is set by the chart, and what pods are found by
{{ end }}
{{- end }}
{{- range $volume := $values.extraVolumes }}
{{- if has $volume.name (list "tmp" "data" "keys" "store" "etcd-ca") }}
{{ $part }}.extraVolumes: {{ $volume.name }} is a volume of the chart
{{ end }}
{{- end }}
{{- end }}
{{- range $label := keys (default dict .Values.podMonitor.labels) | sortAlpha }}
{{- if hasKey $labels $label }}
podMonitor.labels: {{ $label }} is set by the chart
{{ end }}
{{- end }}
{{- end }}

{{- define "memoturn.check.rest" }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.enabled=true takes ingress.hosts
{{ end }}
{{- if lt (int .Values.gateway.autoscaling.maxReplicas) (int .Values.gateway.autoscaling.minReplicas) }}
gateway.autoscaling.maxReplicas is below gateway.autoscaling.minReplicas
{{ end }}
{{- if and (kindIs "invalid" .Values.podDisruptionBudget.minAvailable) (kindIs "invalid" .Values.podDisruptionBudget.maxUnavailable) .Values.podDisruptionBudget.enabled }}
podDisruptionBudget.enabled=true takes minAvailable or maxUnavailable
{{ end }}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
serviceAccount.create=false takes a serviceAccount.name
{{ end }}
{{- end }}
