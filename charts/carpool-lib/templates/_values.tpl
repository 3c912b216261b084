{{/*
From values, as charts/carpool and charts/carpool-lib have them, to what the
templates of _sidecar.tpl take.
*/}}

{{/* The image's reference. Takes {image, appVersion}. */}}
{{- define "carpool.image" -}}
{{- with .image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.appVersion }}{{ end }}
{{- end }}
{{- end }}

{{/*
What carpool's container has in its environment, as JSON: {"items": [{name,
value}, …]}, sorted by name. Takes {settings, own, choices}: own is what
"carpool.sidecarEnv" takes, and the choices decide which of its variables are
among them; settings go before those. A number is written as JSON has it, for
Helm reads all numbers as floating point and prints a million as 1e+06.
*/}}
{{- define "carpool.settingsEnv" -}}
{{- $values := dict -}}
{{- range include "carpool.sidecarEnv" .own | fromYamlArray -}}
{{- if get $.choices .when -}}
{{- $_ := set $values .name .value -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .settings -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $values (print "CARPOOL_" $name) (kindIs "string" $value | ternary $value (toJson $value)) -}}
{{- end -}}
{{- end -}}
{{- $items := list -}}
{{- range $name, $value := $values -}}
{{- $items = append $items (dict "name" $name "value" $value) -}}
{{- end -}}
{{- dict "items" $items | toJson -}}
{{- end }}

{{/* Entries of noProxy as Java has them, each after a |. */}}
{{- define "carpool.nonProxyHosts" -}}
{{- range . }}|{{ if hasPrefix "." . }}*{{ . }}{{ else if regexMatch ":.*:" . }}[{{ . }}]{{ else }}{{ . }}{{ end }}{{ end -}}
{{- end }}

{{/*
The items of a list of the definition whose choice was made, as JSON: {"items":
[…]}. Takes {list, choices}.
*/}}
{{- define "carpool.chosen" -}}
{{- $items := list -}}
{{- range .list -}}
{{- if or (not .when) (get $.choices (.when | default "")) -}}
{{- $items = append $items (omit . "when") -}}
{{- end -}}
{{- end -}}
{{- dict "items" $items | toJson -}}
{{- end }}
