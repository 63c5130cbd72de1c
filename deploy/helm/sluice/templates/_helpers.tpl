{{- define "sluice.name" -}}
{{- if contains "sluice" .Release.Name }}{{ .Release.Name | trunc 50 }}{{ else }}{{ printf "%s-sluice" .Release.Name | trunc 50 }}{{ end }}
{{- end }}

{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sluice.select" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "sluice.sidecar" -}}
{{- with .root.Values.sidecars.registry }}{{ . }}/{{ end }}{{ .of.image }}:{{ .of.tag }}
{{- end }}

{{/* Mounts of an old version go on with its program, so every version has a directory of its own. */}}
{{- define "sluice.runtime" -}}
{{ .Values.hostDir }}/runtime/{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Credentials of the service's volumes: by reference, never in the manifest. */}}
{{- define "sluice.metadataEnv" -}}
{{- $m := .Values.metadata -}}
env:
- {name: HOME, value: /tmp}
{{- with $m.credentials.secretName }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $m.credentials.accessKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $m.credentials.secretKey }}}}
{{- end }}
{{- with $m.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* HOST:PORT of the service, as nodes and the controller reach it. */}}
{{- define "sluice.metadataServer" -}}
{{ .Values.metadata.service.clusterIP | default (printf "%s-metadata.%s.svc" (include "sluice.name" .) .Release.Namespace) }}:{{ .Values.metadata.service.port }}
{{- end }}
