{{/* What selects the injector's pods. */}}
{{- define "carpool.injectorSelector" -}}
app.kubernetes.io/name: carpool-injector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The injector's image: the sidecar's, unless another one is named. */}}
{{- define "carpool.injectorImage" -}}
{{- $image := deepCopy .Values.image -}}
{{- if or .Values.webhook.image.tag .Values.webhook.image.digest -}}
{{- $image = omit $image "tag" "digest" -}}
{{- end -}}
{{- range $key, $value := .Values.webhook.image }}{{ if $value }}{{ $_ := set $image $key $value }}{{ end }}{{ end -}}
{{- include "carpool.image" (dict "image" $image "appVersion" .Chart.AppVersion) -}}
{{- end }}

{{/* The Secret that somebody else fills. */}}
{{- define "carpool.certificateSecret" -}}
{{- if eq .Values.webhook.certificate.source "certManager" -}}
carpool-injector-certificate
{{- else -}}
{{ required "webhook.certificate.secret: name the Secret with tls.crt and tls.key" .Values.webhook.certificate.secret }}
{{- end -}}
{{- end }}

{{/* The name that a webhook has, by which of the selectors it is. */}}
{{- define "carpool.webhookName" -}}
{{ . }}.carpoolproxy.github.io
{{- end }}

{{/* What `carpool injector` reads, as JSON. */}}
{{- define "carpool.injectorConfig" -}}
{{- $options := dict -}}
{{- range $name, $choice := include "carpool.choices" . | fromYaml }}{{ $_ := set $options $name $choice.value }}{{ end -}}
{{- $others := dict -}}
{{- range $kind := list "requests" "limits" -}}
{{- $all := dict -}}
{{- range $name, $quantity := omit (get $.Values.resources $kind | default dict) "cpu" "memory" }}{{ $_ := set $all $name (toString $quantity) }}{{ end -}}
{{- $_ := set $others $kind $all -}}
{{- end -}}
{{- $secrets := list -}}
{{- range .Values.imagePullSecrets }}{{ $secrets = append $secrets .name }}{{ end -}}
{{- $webhooks := list -}}
{{- range $name, $_ := include "carpool.selectors" . | fromJson }}{{ $webhooks = append $webhooks (include "carpool.webhookName" $name) }}{{ end -}}
{{- $own := eq .Values.webhook.certificate.source "own" -}}
{{- $config := dict
  "options" $options
  "settings" (include "carpool.settingsEnv" (dict "settings" .Values.settings "choices" dict "own" dict) | fromJson).items
  "requests" $others.requests "limits" $others.limits
  "cpuLimitWhereRequired" (.Values.cpuLimitWhereRequired | default "" | toString)
  "runAsUser" (ternary "" (toJson .Values.runAsUser) (empty .Values.runAsUser))
  "pullSecrets" $secrets
  "whenMissing" .Values.namespaceSettings.whenMissing
  "listen" (printf ":%v" .Values.webhook.port) "admin" (printf ":%v" .Values.webhook.adminPort)
  "host" (printf "carpool-injector.%s.svc" .Release.Namespace)
  "configuration" "carpool" "webhooks" ($webhooks | sortAlpha)
  "namespace" .Release.Namespace
  "secret" ($own | ternary "carpool-injector" "") "certificates" ($own | ternary "" "/etc/certificates")
  "countMissed" .Values.webhook.countMissed -}}
{{- toPrettyJson $config -}}
{{- end }}
