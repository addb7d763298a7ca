{{- define "quietframe.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "quietframe.selector" -}}
app.kubernetes.io/name: quietframe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The series of this release alone, by the labels that the Prometheus operator gives them. */}}
{{- define "quietframe.series" -}}
namespace={{ .Release.Namespace | quote }},service={{ include "quietframe.name" . | quote }}
{{- end }}

{{- define "quietframe.labels" -}}
{{ include "quietframe.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "quietframe.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "quietframe.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- /* preStop, then the longer of what accepted work may take, then five seconds for BentoML to end. */}}
{{- define "quietframe.terminationGrace" -}}
{{- add (ceil .Values.preStop) (ceil (maxf .Values.grace .Values.timeout)) 5 }}
{{- end }}

{{- define "quietframe.scheme" -}}
{{ if .Values.tlsSecret }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}
