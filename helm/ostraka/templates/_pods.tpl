{{/* Parts of pods. No pod gets service links: their variables would begin like Ostraka's own. */}}

{{/* Head of a pod's spec. Call with (list $ "component" $values). */}}
{{- define "ostraka.podHead" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ include "ostraka.serviceAccount" (list $root (index . 1)) }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $root.Values.podSecurity.runAsUser }}
  runAsGroup: {{ $root.Values.podSecurity.runAsGroup }}
  fsGroup: {{ $root.Values.podSecurity.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.spread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .host }}
    labelSelector:
      matchLabels:
        {{- include "ostraka.selector" $ | nindent 8 }}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ .zone }}
    labelSelector:
      matchLabels:
        {{- include "ostraka.selector" $ | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "ostraka.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Metadata of a pod template. Call with (list $ "component" $values $scraped). */}}
{{- define "ostraka.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- $annotations := dict -}}
{{- if and (index . 3) $root.Values.monitoring.scrapeAnnotations -}}
{{- $annotations = dict "prometheus.io/scrape" "true" "prometheus.io/port" "9001" "prometheus.io/path" "/metrics" -}}
{{- if and $root.Values.tls.enabled (not (has (index . 1) (list "keeper" "node"))) -}}
{{- $_ := set $annotations "prometheus.io/scheme" "https" -}}
{{- end -}}
{{- end -}}
{{- $annotations = merge (dict) (default (dict) $values.podAnnotations) $annotations -}}
labels:
  {{- include "ostraka.labels" (list $root (index . 1)) | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ostraka.rootEnv" -}}
- name: OSTRAKA_ROOT_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "ostraka.rootSecret" . }}
      key: access-key
- name: OSTRAKA_ROOT_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "ostraka.rootSecret" . }}
      key: secret-key
{{- end -}}

{{/* Probes of what answers S3; its admin port has the same certificate. Readiness of what answers S3: the write quorum. */}}
{{- define "ostraka.probes" -}}
{{- $scheme := include "ostraka.endpointScheme" . | upper -}}
startupProbe:
  httpGet: {path: /health/live, port: admin, scheme: {{ $scheme }}}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /health/live, port: admin, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /health/ready, port: admin, scheme: {{ $scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* How a process of the cluster finds etcd and the key. They are in the environment so that
     `kubectl exec … ostraka admin …` in any of these pods needs no options. */}}
{{- define "ostraka.clusterEnv" -}}
- name: OSTRAKA_ETCD
  value: {{ join "," (include "ostraka.etcdEndpoints" . | fromYamlArray) | quote }}
- name: OSTRAKA_CLUSTER_KEY_FILE
  value: /etc/ostraka/key/cluster.key
{{- if (include "ostraka.etcdClientSecret" .) }}
- name: OSTRAKA_ETCD_CA
  value: /etc/ostraka/etcd/ca.crt
- name: OSTRAKA_ETCD_CERT
  value: /etc/ostraka/etcd/tls.crt
- name: OSTRAKA_ETCD_KEY
  value: /etc/ostraka/etcd/tls.key
{{- end }}
{{- if .Values.node.tls.enabled }}
- name: OSTRAKA_NODE_CA
  value: /etc/ostraka/node-ca/ca.crt
{{- end }}
{{- end -}}

{{- define "ostraka.clusterMounts" -}}
- name: cluster-key
  mountPath: /etc/ostraka/key
  readOnly: true
{{- if (include "ostraka.etcdClientSecret" .) }}
- name: etcd-tls
  mountPath: /etc/ostraka/etcd
  readOnly: true
{{- end }}
{{- if .Values.node.tls.enabled }}
- name: node-ca
  mountPath: /etc/ostraka/node-ca
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "ostraka.clusterVolumes" -}}
- name: cluster-key
  secret:
    secretName: {{ include "ostraka.keySecret" . }}
    defaultMode: 288
{{- with (include "ostraka.etcdClientSecret" .) }}
- name: etcd-tls
  secret:
    secretName: {{ . }}
    defaultMode: 288
{{- end }}
{{- if .Values.node.tls.enabled }}
- name: node-ca
  secret:
    secretName: {{ include "ostraka.nodeSecret" . }}
    defaultMode: 288
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
- name: tmp
  emptyDir: {}
{{- end -}}

{{- define "ostraka.nodeSecret" -}}
{{ default (printf "%s-node-tls" (include "ostraka.fullname" .)) .Values.node.tls.secret }}
{{- end -}}

{{- define "ostraka.etcdEndpoints" -}}
{{- if .Values.etcd.bundled -}}
{{- $scheme := ternary "https" "http" .Values.etcd.tls.enabled -}}
{{- $name := include "ostraka.fullname" . -}}
{{- range $number := until (int .Values.etcd.replicas) }}
- {{ printf "%s://%s-etcd-%d.%s-etcd.%s.svc:2379" $scheme $name $number $name $.Release.Namespace }}
{{- end }}
{{- else -}}
{{ toYaml .Values.etcd.externalEndpoints }}
{{- end -}}
{{- end -}}

{{- define "ostraka.etcdClientSecret" -}}
{{- if not .Values.etcd.bundled -}}
{{ .Values.etcd.externalTLSSecret }}
{{- else if .Values.etcd.tls.enabled -}}
{{ default (printf "%s-etcd-client" (include "ostraka.fullname" .)) .Values.etcd.tls.clientSecret }}
{{- end -}}
{{- end -}}

{{- define "ostraka.etcdServerSecret" -}}
{{ default (printf "%s-etcd-server" (include "ostraka.fullname" .)) .Values.etcd.tls.serverSecret }}
{{- end -}}

{{/* Ports of what answers S3. */}}
{{- define "ostraka.frontPorts" -}}
- {name: s3, containerPort: 9000}
- {name: admin, containerPort: 9001}
{{- if .Values.websites.enabled }}
- {name: websites, containerPort: 9080}
{{- end }}
{{- end -}}

{{/* Domains, ports and TLS of what answers S3. */}}
{{- define "ostraka.frontArgs" -}}
- --bind
- 0.0.0.0
- --port
- "9000"
- --admin-port
- "9001"
{{- if .Values.websites.enabled }}
- --website-port
- "9080"
{{- end }}
- --region
- {{ .Values.region | quote }}
- --access-log
- "-"
{{- if .Values.tls.enabled }}
- --tls-cert
- /etc/ostraka/tls/tls.crt
- --tls-key
- /etc/ostraka/tls/tls.key
{{- end }}
{{- range .Values.domains }}
- --domain
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Shards of one object that a host may hold, and how many nodes may be away at will: one failure
     stays in reserve wherever m allows it; none where a node holds more than m shards. */}}
{{- define "ostraka.nodesAway" -}}
{{- $width := add .Values.scheme.data .Values.scheme.parity -}}
{{- $nodes := int .Values.node.replicas -}}
{{- $held := div (sub (add $width $nodes) 1) $nodes -}}
{{- $bearable := div .Values.scheme.parity $held -}}
{{- if ne .Values.node.maxUnavailable nil -}}
{{ .Values.node.maxUnavailable }}
{{- else if gt (int $bearable) 1 -}}
{{ sub $bearable 1 }}
{{- else -}}
{{ $bearable }}
{{- end -}}
{{- end -}}
