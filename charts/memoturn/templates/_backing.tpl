{{/* The services of an installation for trying out: one pod each. dict "root" . "part" "minio" "values" .Values.minio "user" 65532
"port" 9000 "container" (all that is its own, as text) "path" (where its data is) "writable" (folders besides it) */}}

{{- define "memoturn.backing" -}}
{{- $name := printf "%s-%s" (include "memoturn.fullname" .root) .part }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "memoturn.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ $name }}
  selector:
    matchLabels:
      {{- include "memoturn.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "memoturn.labels" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "memoturn.serviceAccountName" . | quote }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml (merge (dict "runAsUser" .user "runAsGroup" .user "fsGroup" .user) .root.Values.podSecurityContext) | nindent 8 }}
      terminationGracePeriodSeconds: 30
      containers:
        - name: {{ .part }}
          image: {{ .values.image | quote }}
          {{- .container | nindent 10 }}
          ports:
            - {name: {{ .part }}, containerPort: {{ .port }}}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- toYaml .root.Values.securityContext | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: {{ .path }}}
            {{- range $index, $folder := .writable }}
            - {name: scratch-{{ $index }}, mountPath: {{ $folder }}}
            {{- end }}
      volumes:
        {{- range $index, $folder := .writable }}
        - name: scratch-{{ $index }}
          emptyDir: {sizeLimit: 64Mi}
        {{- end }}
        {{- if not .values.persistence.enabled }}
        - name: data
          emptyDir: {sizeLimit: {{ include "memoturn.number" .values.persistence.size | quote }}}
        {{- end }}
  {{- if .values.persistence.enabled }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.persistence.storageClass }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests: {storage: {{ include "memoturn.number" .values.persistence.size | quote }}}
  {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "memoturn.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  selector:
    {{- include "memoturn.selector" . | nindent 4 }}
  ports:
    - {name: {{ .part }}, port: {{ .port }}, targetPort: {{ .part }}}
{{- end }}
