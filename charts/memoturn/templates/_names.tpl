{{/* Names and labels. They are quoted: some that are allowed, such as 123 or true, are no texts to YAML. */}}

{{- define "memoturn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimAll "-" }}
{{- end }}

{{/* Short enough that the name of a pod with all that Kubernetes appends fits into a label. */}}
{{- define "memoturn.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimAll "-" }}
{{- else if contains (include "memoturn.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimAll "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "memoturn.name" .) | trunc 40 | trimAll "-" }}
{{- end }}
{{- end }}

{{/* What selects the pods of a part: dict "root" . "part" "gateway". */}}
{{- define "memoturn.selector" -}}
app.kubernetes.io/name: {{ include "memoturn.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "memoturn.labels" -}}
{{ include "memoturn.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "memoturn.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "memoturn.labels" . | nindent 2 }}
{{- end }}

{{- define "memoturn.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest }}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The service account of a part. The parts that reach the bucket share one, whose annotations may give it a role there. */}}
{{- define "memoturn.serviceAccountName" -}}
{{- $own := ternary (printf "%s-%s" (include "memoturn.fullname" .root) .part) (include "memoturn.fullname" .root) (not (has .part (list "dataplane" "control-plane"))) -}}
{{- if has .part (list "dataplane" "control-plane") -}}
{{- if .root.Values.serviceAccount.create -}}
{{- default $own .root.Values.serviceAccount.name }}
{{- else -}}
{{- .root.Values.serviceAccount.name }}
{{- end }}
{{- else -}}
{{- $own }}
{{- end }}
{{- end }}

{{/* Which parts there are, as a JSON list. */}}
{{- define "memoturn.parts" -}}
{{- $parts := list "dataplane" -}}
{{- if .Values.gateway.enabled }}{{ $parts = append $parts "gateway" }}{{ end -}}
{{- if .Values.controlPlane.enabled }}{{ $parts = append $parts "control-plane" }}{{ end -}}
{{- if .Values.mcp.enabled }}{{ $parts = append $parts "mcp" }}{{ end -}}
{{- if include "memoturn.migrates" . }}{{ $parts = append $parts "migrate" }}{{ end -}}
{{- if eq .Values.objectStorage.backend "minio" }}{{ $parts = append $parts "minio" }}{{ end -}}
{{- if .Values.etcd.enabled }}{{ $parts = append $parts "etcd" }}{{ end -}}
{{- if .Values.postgres.enabled }}{{ $parts = append $parts "postgres" }}{{ end -}}
{{- $parts | toJson }}
{{- end }}

{{/* The part that clients speak to. */}}
{{- define "memoturn.front" -}}
{{- ternary "gateway" "dataplane" .Values.gateway.enabled }}
{{- end }}

{{- define "memoturn.authSecret" -}}
{{- default (printf "%s-auth" (include "memoturn.fullname" .)) .Values.auth.existingSecret }}
{{- end }}

{{- define "memoturn.catalogSecret" -}}
{{- if .Values.postgres.enabled -}}
{{- include "memoturn.fullname" . }}-postgres
{{- else -}}
{{- .Values.catalog.existingSecret }}
{{- end }}
{{- end }}

{{/* Not empty where the schema in Postgres is to be brought up to date. */}}
{{- define "memoturn.migrates" -}}
{{- if and .Values.catalog.migration.enabled (include "memoturn.catalogSecret" .) }}yes{{ end }}
{{- end }}
