{{/* How jobs reach the store: addresses, and the certificate authority where S3 is HTTPS. */}}

{{- define "ostraka.jobEnv" -}}
- name: S3_ENDPOINT
  value: {{ printf "%s://%s:%v" (include "ostraka.endpointScheme" .) (include "ostraka.serviceHost" .) .Values.service.port }}
- name: ADMIN_ENDPOINT
  value: {{ printf "%s://%s-admin.%s.svc:9001" (include "ostraka.endpointScheme" .) (include "ostraka.fullname" .) .Release.Namespace }}
- name: REGION
  value: {{ .Values.region | quote }}
{{- if .Values.tls.enabled }}
- name: CA_FILE
  value: /etc/ostraka/tls/ca.crt
{{- end }}
{{- end -}}

{{/* Of the name of a provisioned user's secret. The dot keeps account and name apart. */}}
{{- define "ostraka.userSuffix" -}}
{{- printf "-user-%s%s" (.account | empty | ternary "" (printf "%s." .account)) .name -}}
{{- end -}}

{{- define "ostraka.jobMounts" -}}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/ostraka/tls, readOnly: true}
{{- end }}
{{- end -}}

{{/* The private key stays where it is: a certificate that a public authority signed has no ca.crt. */}}
{{- define "ostraka.jobVolumes" -}}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "ostraka.tlsSecret" . }}
    defaultMode: 288
    optional: true
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end -}}
