{{/* The name of everything: the release's, with the chart's unless it is in it. */}}
{{- define "anteroom.name" -}}
{{- if contains "anteroom" .Release.Name }}{{ .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}{{ printf "%s-anteroom" .Release.Name | trunc 55 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "anteroom.selector" -}}
app.kubernetes.io/name: anteroom
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "anteroom.labels" -}}
{{ include "anteroom.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The Secret with the token, the webhooks' secrets and what Redis takes; empty if there is none of them. */}}
{{- define "anteroom.secret" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.existing }}
{{- else if or .Values.secrets.adminToken .Values.secrets.webhookSecrets .Values.secrets.replicasSecret }}{{ include "anteroom.name" . }}{{ end }}
{{- end }}

{{- define "anteroom.adminTokenKey" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.adminTokenKey }}
{{- else if .Values.secrets.adminToken }}admin-token{{ end }}
{{- end }}

{{- define "anteroom.replicasSecretKey" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.replicasSecretKey }}
{{- else if .Values.secrets.replicasSecret }}replicas-secret{{ end }}
{{- end }}

{{- define "anteroom.redisPasswordKey" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.redisPasswordKey }}
{{- else if .Values.secrets.redisPassword }}redis-password{{ end }}
{{- end }}

{{/* The setting webhook.secrets: the files that they are in. */}}
{{- define "anteroom.webhookSecrets" -}}
{{- $keys := .Values.secrets.webhookSecretKeys }}
{{- if not .Values.secrets.existing }}
{{- $keys = list }}
{{- range $index, $_ := .Values.secrets.webhookSecrets }}{{ $keys = append $keys (printf "webhook-secret-%d" $index) }}{{ end }}
{{- end }}
{{- $files := list }}
{{- range $keys }}{{ $files = append $files (printf "{ file = \"/run/secrets/anteroom/%s\" }" .) }}{{ end }}
{{- if $files }}[{{ join ", " $files }}]{{ end }}
{{- end }}
