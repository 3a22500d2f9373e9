{{/* Numbers. Those of a values file are floats, which print as 1e+09 where nothing is done about it. */}}

{{- define "memoturn.number" -}}
{{- if kindIs "string" . -}}
{{- . }}
{{- else if eq (float64 .) (floor .) -}}
{{- int64 . }}
{{- else -}}
{{- . }}
{{- end }}
{{- end }}

{{/* A setting as the programs read it: 0 and 1 for no and yes, JSON for objects, commas for lists. */}}
{{- define "memoturn.setting" -}}
{{- if kindIs "bool" . -}}
{{- ternary "1" "0" . }}
{{- else if kindIs "map" . -}}
{{- toJson . }}
{{- else if kindIs "slice" . -}}
{{- join "," . }}
{{- else -}}
{{- include "memoturn.number" . }}
{{- end }}
{{- end }}

{{/* Bytes of a quantity of Kubernetes, such as 10Gi, 512M or 1.5Gi. */}}
{{- define "memoturn.bytes" -}}
{{- $text := include "memoturn.number" . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "%q is no quantity of bytes, such as 2Gi or 512Mi" $text) }}
{{- end -}}
{{- mulf (float64 $number) (float64 (get $units $unit)) | int64 }}
{{- end }}
