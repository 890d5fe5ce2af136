{{/* Names, labels and what every pod has in common. */}}

{{- define "ostraka.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Call with (list $ "component"). */}}
{{- define "ostraka.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "ostraka.labels" -}}
{{- $root := index . 0 -}}
{{ include "ostraka.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object. Call with (list $ "component" "suffix" [annotations [labels]]). */}}
{{- define "ostraka.metadata" -}}
{{- $root := index . 0 -}}
{{- $annotations := dict -}}
{{- if gt (len .) 3 }}{{ $annotations = index . 3 }}{{ end -}}
{{- $annotations = merge (dict) $annotations $root.Values.commonAnnotations -}}
name: {{ printf "%s%s" (include "ostraka.fullname" $root) (index . 2) }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "ostraka.labels" (list $root (index . 1)) | nindent 2 }}
  {{- if gt (len .) 4 }}
  {{- with index . 4 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ostraka.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest | quote }}
{{- else -}}
{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The component that answers S3. */}}
{{- define "ostraka.front" -}}
{{- ternary "store" "gateway" (eq .Values.mode "single") -}}
{{- end -}}


{{- define "ostraka.endpointScheme" -}}
{{- ternary "https" "http" .Values.tls.enabled -}}
{{- end -}}

{{- define "ostraka.serviceHost" -}}
{{- printf "%s.%s.svc" (include "ostraka.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "ostraka.rootSecret" -}}
{{- default (printf "%s-root" (include "ostraka.fullname" .)) .Values.rootCredentials.existingSecret -}}
{{- end -}}

{{- define "ostraka.keySecret" -}}
{{- default (printf "%s-cluster-key" (include "ostraka.fullname" .)) .Values.clusterKey.existingSecret -}}
{{- end -}}

{{- define "ostraka.tlsSecret" -}}
{{- default (printf "%s-tls" (include "ostraka.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{- define "ostraka.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.serviceAccount.create -}}
{{- printf "%s-%s" (include "ostraka.fullname" $root) (index . 1) -}}
{{- else -}}
{{- default "default" $root.Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
