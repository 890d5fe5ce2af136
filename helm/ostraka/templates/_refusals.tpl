{{/* What the schema cannot say: values that contradict each other, each refused with its reason. */}}

{{- define "ostraka.refusals" -}}
{{- $v := .Values -}}
{{- $width := int (add $v.scheme.data $v.scheme.parity) -}}
{{- if eq $v.mode "single" -}}
  {{- if lt (int $v.store.drives.count) $width -}}
    {{- fail (printf "store.drives.count is %d: the scheme %d+%d needs at least %d drives" (int $v.store.drives.count) (int $v.scheme.data) (int $v.scheme.parity) $width) -}}
  {{- end -}}
{{- else -}}
  {{- if lt (int (mul $v.node.replicas $v.node.drives.count)) $width -}}
    {{- fail (printf "node.replicas × node.drives.count is %d: the scheme %d+%d needs at least %d drives" (int (mul $v.node.replicas $v.node.drives.count)) (int $v.scheme.data) (int $v.scheme.parity) $width) -}}
  {{- end -}}
  {{- if and $v.etcd.bundled $v.etcd.externalEndpoints -}}
    {{- fail "etcd.externalEndpoints is set but etcd.bundled is on: choose one" -}}
  {{- end -}}
  {{- if and (not $v.etcd.bundled) (not $v.etcd.externalEndpoints) -}}
    {{- fail "etcd.bundled is off: name your etcd in etcd.externalEndpoints" -}}
  {{- end -}}
  {{- if and $v.etcd.bundled $v.etcd.tls.enabled (not $v.etcd.tls.certManager) (or (not $v.etcd.tls.serverSecret) (not $v.etcd.tls.clientSecret)) -}}
    {{- fail "etcd.tls without cert-manager needs etcd.tls.serverSecret and etcd.tls.clientSecret" -}}
  {{- end -}}
  {{- if and $v.node.tls.enabled (not $v.node.tls.certManager) (not $v.node.tls.secret) -}}
    {{- fail "node.tls without cert-manager needs node.tls.secret" -}}
  {{- end -}}
  {{- if and $v.gateway.autoscaling.enabled (gt (int $v.gateway.autoscaling.minReplicas) (int $v.gateway.autoscaling.maxReplicas)) -}}
    {{- fail "gateway.autoscaling.minReplicas is above maxReplicas" -}}
  {{- end -}}
  {{- if le (int $v.gateway.terminationGracePeriodSeconds) (int (add $v.gateway.preStopSleepSeconds 30)) -}}
    {{- fail "gateway.terminationGracePeriodSeconds must leave 30 s to drain after preStopSleepSeconds" -}}
  {{- end -}}
  {{- if and (eq $v.node.zone.from "fixed") (not $v.node.zone.value) -}}
    {{- fail "node.zone.from is fixed: set node.zone.value" -}}
  {{- end -}}
  {{- if and (eq $v.node.zone.from "nodeLabel") (not $v.serviceAccount.create) (not $v.serviceAccount.name) -}}
    {{- fail "node.zone.from nodeLabel needs a service account that may get nodes: set serviceAccount.name" -}}
  {{- end -}}
{{- end -}}
{{- if and $v.tls.existingSecret $v.tls.certManager.enabled -}}
  {{- fail "tls.existingSecret and tls.certManager.enabled are both set: choose one" -}}
{{- end -}}
{{- if and $v.tls.enabled (not $v.tls.existingSecret) (not $v.tls.certManager.enabled) -}}
  {{- fail "tls.enabled needs tls.existingSecret or tls.certManager.enabled" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.enabled) -}}
  {{- fail "tls.certManager.enabled is on but tls.enabled is off" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) -}}
  {{- fail "tls.certManager needs issuerRef.name" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
  {{- fail "ingress.enabled needs ingress.hosts" -}}
{{- end -}}
{{- if and $v.websites.ingress.enabled (not $v.websites.ingress.hosts) -}}
  {{- fail "websites.ingress.enabled needs websites.ingress.hosts" -}}
{{- end -}}
{{- if and (or $v.httpRoute.enabled $v.websites.httpRoute.enabled) (not $v.httpRoute.parentRefs) -}}
  {{- fail "httpRoute.enabled and websites.httpRoute.enabled need httpRoute.parentRefs" -}}
{{- end -}}
{{- if and (or $v.websites.ingress.enabled $v.websites.httpRoute.enabled) (not $v.websites.enabled) -}}
  {{- fail "websites are routed but websites.enabled is off" -}}
{{- end -}}
{{- range $v.websites.ingress.hosts -}}
  {{- if and $v.ingress.enabled (has . $v.ingress.hosts) -}}
    {{- fail (printf "%s is a host of ingress.hosts and of websites.ingress.hosts: one host is S3 or a website" .) -}}
  {{- end -}}
{{- end -}}
{{- $accounts := list -}}
{{- range $v.provisioning.accounts -}}{{- $accounts = append $accounts .name -}}{{- end -}}
{{- range $v.provisioning.buckets -}}
  {{- if and .account (not (has .account $accounts)) -}}
    {{- fail (printf "bucket %s names the account %s, which provisioning.accounts does not list" .name .account) -}}
  {{- end -}}
{{- end -}}
{{- $groups := list -}}
{{- range $v.provisioning.groups -}}
  {{- if and .account (not (has .account $accounts)) -}}
    {{- fail (printf "group %s names the account %s, which provisioning.accounts does not list" .name .account) -}}
  {{- end -}}
  {{- $groups = append $groups (printf "%s/%s" (.account | default "root") .name) -}}
{{- end -}}
{{- $users := list -}}
{{- range $user := $v.provisioning.users -}}
  {{- if and .account (not (has .account $accounts)) -}}
    {{- fail (printf "user %s names the account %s, which provisioning.accounts does not list" .name .account) -}}
  {{- end -}}
  {{- range .groups -}}
    {{- if not (has (printf "%s/%s" ($user.account | default "root") .) $groups) -}}
      {{- fail (printf "user %s is in the group %s, which provisioning.groups does not list for its account" $user.name .) -}}
    {{- end -}}
  {{- end -}}
  {{- $users = append $users (printf "%s/%s" (.account | default "root") .name) -}}
{{- end -}}
{{- if ne (len $users) (len (uniq $users)) -}}
  {{- fail "provisioning.users lists a user of an account twice" -}}
{{- end -}}
{{- if ne (len $groups) (len (uniq $groups)) -}}
  {{- fail "provisioning.groups lists a group of an account twice" -}}
{{- end -}}
{{- end -}}
