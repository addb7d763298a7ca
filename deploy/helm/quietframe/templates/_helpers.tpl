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

{{- /* What was accepted just before SIGTERM has its whole time. */}}
{{- define "quietframe.grace" -}}
{{- maxf .Values.grace .Values.timeout }}
{{- end }}

{{- /* preStop, then what accepted work may take, then five seconds for BentoML to end. */}}
{{- define "quietframe.terminationGrace" -}}
{{- add (ceil .Values.preStop) (ceil (float64 (include "quietframe.grace" .))) 5 }}
{{- end }}

{{- /* The one who asks Prometheus for `quietframe.series` says so here. */}}
{{- define "quietframe.needsMonitor" -}}
{{- if not (or .root.Values.serviceMonitor.enabled .root.Values.serviceMonitor.own) }}
{{- fail (printf "%s asks Prometheus for series that a ServiceMonitor brings; set serviceMonitor.enabled=true, or serviceMonitor.own=true where one of yours does" .who) }}
{{- end }}
{{- end }}

{{- define "quietframe.scheme" -}}
{{ if .Values.tlsSecret }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}
