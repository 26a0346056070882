{{- define "viewing-service.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "viewing-service.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "viewing-service.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "viewing-service.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "viewing-service.selectorLabels" -}}
app.kubernetes.io/name: {{ include "viewing-service.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Without what selects pods, for objects that must not look like the service. */}}
{{- define "viewing-service.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimSuffix "-" | trimSuffix "." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: playback
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "viewing-service.labels" -}}
{{ include "viewing-service.selectorLabels" . }}
{{ include "viewing-service.commonLabels" . }}
{{- end }}

{{- define "viewing-service.metadata" -}}
name: {{ include "viewing-service.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "viewing-service.labels" . | nindent 2 }}
{{- end }}

{{- define "viewing-service.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "viewing-service.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "viewing-service.secretName" -}}
{{- .Values.secret.existingSecret | default (include "viewing-service.fullname" .) }}
{{- end }}

{{- define "viewing-service.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* A variable's text. Numbers of values files arrive as floats, and 268435456 must not become 2.68435456e+08. */}}
{{- define "viewing-service.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "viewing-service.shutdownSeconds" -}}
{{- .Values.config.SHUTDOWN_DELAY | default "1s" | toString | trimSuffix "s" }}
{{- end }}

{{/* The service itself gives up 10 s after SHUTDOWN_DELAY, with several workers 15 s. */}}
{{- define "viewing-service.gracePeriod" -}}
{{- .Values.terminationGracePeriodSeconds | default (add .Values.preStopSeconds (include "viewing-service.shutdownSeconds" . | int) 20) | int64 }}
{{- end }}

{{- define "viewing-service.replicasFromOutside" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end }}
{{- end }}

{{/* What the schema cannot tell. */}}
{{- define "viewing-service.validate" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling.enabled, keda.enabled: only one of them may set the number of pods" }}
{{- end }}
{{- range $name := list "autoscaling" "keda" }}
{{- $scaler := index $.Values $name }}
{{- if gt (int $scaler.minReplicas) (int $scaler.maxReplicas) }}
{{- fail (printf "%s.minReplicas: must be at most %s.maxReplicas" $name $name) }}
{{- end }}
{{- end }}
{{- if and .Values.secret.existingSecret .Values.secret.values }}
{{- fail "secret.existingSecret, secret.values: give only one of them" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor.enabled, metrics.podMonitor.enabled: only one, or every sample counts twice" }}
{{- end }}
{{- if lt (include "viewing-service.gracePeriod" . | int) (add .Values.preStopSeconds (include "viewing-service.shutdownSeconds" . | int) 15 | int) }}
{{- fail "terminationGracePeriodSeconds: must be at least preStopSeconds + SHUTDOWN_DELAY + 15, or draining is cut off" }}
{{- end }}
{{- $stores := 0 }}
{{- range list "REDIS_ADDR" "REDIS_CLUSTER" "REDIS_SENTINELS" }}{{ if index $.Values.config . }}{{ $stores = add1 $stores }}{{ end }}{{ end }}
{{- if gt (int $stores) 1 }}
{{- fail "config: give only one of REDIS_ADDR, REDIS_CLUSTER, REDIS_SENTINELS (empty the others)" }}
{{- end }}
{{- if and (eq .Values.config.AUTH_MODE "jwt") (not (and .Values.config.AUTH_ISSUER .Values.config.AUTH_AUDIENCE)) }}
{{- fail "config.AUTH_ISSUER, config.AUTH_AUDIENCE: required with AUTH_MODE=jwt" }}
{{- end }}
{{- end }}
