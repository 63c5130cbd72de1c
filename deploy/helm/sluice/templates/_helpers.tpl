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
