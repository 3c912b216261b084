{{/*
What a team's own chart includes; README.md shows where. All of them take the
chart's root context, and their options from .Values.carpool, over the defaults
of this chart's values.yaml.
*/}}

{{/* The native sidecar: the first item of initContainers. */}}
{{- define "carpool-lib.sidecar" -}}
{{- list (include "carpool.container" (include "carpool-lib.options" (list . true) | fromJson) | fromYaml) | toYaml -}}
{{- end }}

{{/* An ordinary container, for clusters before 1.29: an item of containers. */}}
{{- define "carpool-lib.container" -}}
{{- $options := include "carpool-lib.options" (list . false) | fromJson -}}
{{- if $options.preload -}}
{{- fail "carpool-lib: preload needs a native sidecar: Kubernetes does not promise that an ordinary container serves before the app starts, and without the script Node.js does not start" -}}
{{- end -}}
{{- list (include "carpool.container" $options | fromYaml) | toYaml -}}
{{- end }}

{{/* The variables of a container that is to use carpool: items of its env. */}}
{{- define "carpool-lib.env" -}}
{{- $options := include "carpool-lib.options" (list . true) | fromJson -}}
{{- $env := list -}}
{{- range (include "carpool.chosen" (dict "list" (include "carpool.appEnv" $options | fromYamlArray) "choices" $options) | fromJson).items -}}
{{- $env = append $env (pick . "name" "value") -}}
{{- end -}}
{{- toYaml $env -}}
{{- end }}

{{/* With preload, what such a container mounts: items of its volumeMounts. */}}
{{- define "carpool-lib.volumeMounts" -}}
{{- $options := include "carpool-lib.options" (list . true) | fromJson -}}
{{- (include "carpool.chosen" (dict "list" (include "carpool.mounts" $options | fromYamlArray) "choices" $options) | fromJson).items | toYaml -}}
{{- end }}

{{/* With preload, cache or secret, the volumes of the pod: items of its volumes. */}}
{{- define "carpool-lib.volumes" -}}
{{- $options := include "carpool-lib.options" (list . true) | fromJson -}}
{{- (include "carpool.chosen" (dict "list" (include "carpool.volumes" $options | fromYamlArray) "choices" $options) | fromJson).items | toYaml -}}
{{- end }}

{{/*
The dictionary that the templates of _sidecar.tpl take, as JSON. Takes a list:
the chart's root context, and whether the sidecar is native.
*/}}
{{- define "carpool-lib.options" -}}
{{- $root := first . -}}
{{- $library := index $root.Subcharts "carpool-lib" | default $root.Subcharts.carpool -}}
{{- if not $library -}}
{{- fail "carpool-lib: list it under dependencies in Chart.yaml, by its own name or with alias: carpool" -}}
{{- end -}}
{{- $values := mergeOverwrite (deepCopy $library.Values) (deepCopy ($root.Values.carpool | default dict)) -}}
{{- range $values.noProxy -}}
{{- if not (or (regexMatch (include "carpool.noProxyEntry" dict) .) (regexMatch "^[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*$" .)) -}}
{{- fail (printf "carpool-lib: noProxy: want %s, not %q" (include "carpool.noProxyWant" dict) .) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch (include "carpool.godebug" dict) ($values.godebug | default "" | toString)) -}}
{{- fail (printf "carpool-lib: godebug: want %s, not %q" (include "carpool.godebugWant" dict) (toString $values.godebug)) -}}
{{- end -}}
{{- if not (and (regexMatch (include "carpool.secretName" dict) ($values.secret | default "" | toString)) (le (len ($values.secret | default "" | toString)) 253)) -}}
{{- fail (printf "carpool-lib: secret: want %s, not %q" (include "carpool.secretNameWant" dict) (toString $values.secret)) -}}
{{- end -}}
{{- $options := pick $values "https" "java" "preload" "preloadHttps" "cache" "secret" "resources" "port" "adminPort" "godebug" -}}
{{- $_ := set $options "preload" (or $options.preload $options.preloadHttps) -}}
{{- $_ := set $options "native" (last .) -}}
{{- $_ := set $options "plain" (not $options.native) -}}
{{- $_ := set $options "image" (include "carpool.image" (dict "image" $values.image "appVersion" $library.Chart.AppVersion)) -}}
{{- $_ := set $options "pullPolicy" $values.image.pullPolicy -}}
{{- $_ := set $options "noProxy" (concat (list (include "carpool.noProxy" dict)) $values.noProxy | join ",") -}}
{{- $_ := set $options "nonProxyHosts" (include "carpool.nonProxyHosts" $values.noProxy) -}}
{{- with $values.runAsUser -}}
{{- $_ := set $options "user" (toJson .) -}}
{{- end -}}
{{- $choices := pick $options "preload" "cache" "plain" "godebug" -}}
{{- $_ := set $choices "port" (ne (toString $values.port) "3128") -}}
{{- $_ := set $choices "adminPort" (ne (toString $values.adminPort) "9128") -}}
{{- $_ := set $options "env" (include "carpool.settingsEnv" (dict "settings" $values.settings "own" $options "choices" $choices) | fromJson).items -}}
{{- $_ := set $options "mounts" (include "carpool.chosen" (dict "list" (include "carpool.sidecarMounts" dict | fromYamlArray) "choices" $options) | fromJson).items -}}
{{- toJson $options -}}
{{- end }}
