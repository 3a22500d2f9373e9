{{/* What the pods of every part have in common.

dict "root" . "part" "gateway" "values" .Values.gateway "command" (list ...) "env" "..." "port" 8080 "ready" "/ready"
     "data" true (a folder of its own) "keys" true (the node's credentials) "etcd" true (its certificates) */}}

{{- define "memoturn.pod" -}}
metadata:
  labels:
    {{- include "memoturn.labels" . | nindent 4 }}
    {{- with .values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "memoturn.serviceAccountName" . | quote }}
  automountServiceAccountToken: false
  # Variables of services such as MEMOTURN_PORT would be taken for settings, and refused.
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .root.Values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ include "memoturn.number" .values.terminationGracePeriodSeconds }}
  containers:
    - name: {{ .part }}
      image: {{ include "memoturn.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      env:
        {{- .env | nindent 8 }}
        {{- with .values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: {{ .port }}
      startupProbe:
        httpGet: {path: /health, port: http}
        {{- toYaml .values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /health, port: http}
        {{- toYaml .values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: {{ .ready }}, port: http}
        {{- toYaml .values.probes.readiness | nindent 8 }}
      {{- if gt (int .values.preStopSleepSeconds) 0 }}
      lifecycle:
        preStop:
          # Until nobody is sent here any more; SIGTERM then hands over and ships.
          sleep:
            seconds: {{ include "memoturn.number" .values.preStopSleepSeconds }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .root.Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if .data }}
        - {name: data, mountPath: /var/lib/memoturn}
        {{- end }}
        {{- if .keys }}
        - {name: keys, mountPath: /run/secrets/memoturn, readOnly: true}
        {{- end }}
        {{- if and .keys (include "memoturn.storeSecret" .root) }}
        - {name: store, mountPath: /run/secrets/store, readOnly: true}
        {{- end }}
        {{- if and .etcd .root.Values.cluster.etcd.caSecret }}
        - {name: etcd-ca, mountPath: /run/secrets/etcd, readOnly: true}
        {{- end }}
        {{- with .values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ include "memoturn.number" .values.tmpSize | quote }}}
    {{- if .data }}
    - name: data
      emptyDir: {sizeLimit: {{ include "memoturn.number" .values.cacheSize | quote }}}
    {{- end }}
    {{- if .keys }}
    - name: keys
      secret:
        secretName: {{ include "memoturn.authSecret" .root | quote }}
        defaultMode: 0440
        items:
          - {key: PLATFORM_KEY, path: platform}
          - {key: CLUSTER_KEY, path: cluster}
          {{- if not .root.Values.server.persistAuthKey }}
          - {key: AUTH_KEY, path: signing}
          {{- end }}
    {{- with (include "memoturn.storeSecret" .root) }}
    - name: store
      secret:
        secretName: {{ . | quote }}
        defaultMode: 0440
        items:
          - {key: service-account.json, path: service-account.json}
    {{- end }}
    {{- end }}
    {{- if and .etcd .root.Values.cluster.etcd.caSecret }}
    - name: etcd-ca
      secret:
        secretName: {{ .root.Values.cluster.etcd.caSecret | quote }}
        defaultMode: 0440
        items:
          - {key: ca.crt, path: ca.crt}
    {{- end }}
    {{- with .values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if .values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml .values.topologySpreadConstraints | nindent 4 }}
  {{- else }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "memoturn.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
{{- end }}

{{/* The secret with a key file for the bucket, where there is one. */}}
{{- define "memoturn.storeSecret" -}}
{{- if eq .Values.objectStorage.backend "gs" }}{{ .Values.objectStorage.gs.existingSecret }}{{ end }}
{{- end }}
