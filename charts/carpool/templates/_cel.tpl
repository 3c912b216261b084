{{/*
A value as a CEL expression. What is known only when a pod comes stands in it as
a string with "cel:EXPRESSION;" in it, the last semicolon of which may be left
out. With "cel?:EXPRESSION" the key is there unless that is null. (CEL's own
optional keys let the API server's compiler panic if their type is not known.)
dyn() is around every item because CEL in Kubernetes wants the items of a list,
and the values of a map, to be of one type. It is for the definition of the
sidecar only: in what users write, "cel:" is just text.
*/}}
{{- define "carpool.cel" -}}
{{- if kindIs "map" . -}}
{{- $nulls := false -}}
{ {{- range $key, $value := . }}
{{- if and (kindIs "string" $value) (hasPrefix "cel?:" (toString $value)) -}}
{{- $nulls = true -}}
{{- $value = print "cel:" (trimPrefix "cel?:" $value) -}}
{{- end -}}
{{ toJson $key }}: dyn({{ include "carpool.cel" $value }}), {{ end -}} }
{{- if $nulls }}.transformMap(key, value, value != null, value){{ end }}
{{- else if kindIs "slice" . -}}
[ {{- range . }}dyn({{ include "carpool.cel" . }}), {{ end -}} ]
{{- else if and (kindIs "string" .) (contains "cel:" (toString .)) -}}
{{- $terms := list -}}
{{- range $i, $part := splitList "cel:" . -}}
{{- $text := $part -}}
{{- if $i -}}
{{- $split := splitn ";" 2 $part -}}
{{- $terms = append $terms $split._0 -}}
{{- $text = $split._1 | default "" -}}
{{- end -}}
{{- with $text -}}{{- $terms = append $terms (toJson .) -}}{{- end -}}
{{- end -}}
{{ join " + " $terms }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}

{{/* The items of a list of the definition whose choice was made. Takes {list, when}: expressions, by the choices. */}}
{{- define "carpool.cel.chosen" -}}
[
{{- range .list }}
  {"is": dyn({{ include "carpool.cel" (omit . "when") }}), "on": dyn({{ get $.when .when }})},
{{- end }}
].filter(item, item.on).map(item, item.is)
{{- end }}

{{/*
Patches that append to a list, which may not be there, the items that it does
not have by name. Takes {object, field, path, items}, all CEL expressions but
field.
*/}}
{{- define "carpool.cel.append" -}}
{{- $list := printf "%s.%s" .object .field -}}
(has({{ $list }}) || {{ .items }} == [] ? [] : [{"path": dyn({{ .path }}), "value": dyn([])}]) +
{{ .items }}.filter(item, !has({{ $list }}) || !{{ $list }}.exists(there, there.name == item.name))
  .map(item, {"path": dyn({{ .path }} + "/-"), "value": dyn(item)})
{{- end }}

{{/*
What a pod can choose: by the annotation carpoolproxy.github.io/NAME, else by
the ConfigMap's KEY, else it is the chart's value. As YAML: NAME: {key, value,
example}, the last for quantities only.
*/}}
{{- define "carpool.choices" -}}
{{- $requests := .Values.resources.requests | default dict -}}
{{- $limits := .Values.resources.limits | default dict -}}
image: {key: image, value: {{ include "carpool.image" (dict "image" .Values.image "appVersion" .Chart.AppVersion) | toJson }}}
pull-policy: {key: pullPolicy, value: {{ toJson .Values.image.pullPolicy }}}
cpu-request: {key: cpuRequest, value: {{ $requests.cpu | default "" | toString | toJson }}, example: 20m}
cpu-limit: {key: cpuLimit, value: {{ $limits.cpu | default "" | toString | toJson }}, example: 100m}
memory-request: {key: memoryRequest, value: {{ $requests.memory | default "" | toString | toJson }}, example: 32Mi}
memory-limit: {key: memoryLimit, value: {{ $limits.memory | default "" | toString | toJson }}, example: 128Mi}
https: {key: https, value: {{ .Values.https | toString | toJson }}}
java: {key: java, value: {{ .Values.java | toString | toJson }}}
preload: {key: preload, value: {{ .Values.preload | toString | toJson }}}
preload-https: {key: preloadHttps, value: {{ .Values.preloadHttps | toString | toJson }}}
cache: {key: cache, value: {{ .Values.cache | toString | toJson }}}
secret: {key: secret, value: {{ .Values.secret | default "" | toJson }}}
no-proxy: {key: noProxy, value: {{ join "," .Values.noProxy | toJson }}}
port: {key: port, value: {{ .Values.port | toString | toJson }}}
admin-port: {key: adminPort, value: {{ .Values.adminPort | toString | toJson }}}
godebug: {key: godebug, value: {{ .Values.godebug | default "" | toJson }}}
skip-containers: {key: skipContainers, value: {{ join "," .Values.skipContainers | toJson }}}
{{- end }}
