{{/*
The sidecar, defined once. This chart, the admission policy of charts/carpool and
`carpool inject` all render these templates and add nothing of their own, so a
new setting, volume or init container is one change here.

They use what Go's text/template has, and toJson: `carpool inject` is not Helm.
Each takes a dictionary:

  image, pullPolicy         strings
  env                       list of {name, value}: carpool's settings, and what
                            "carpool.sidecarEnv" has for those not among them,
                            sorted by name
  resources                 {requests: …, limits: …}
  port, adminPort           numbers: of the proxy, and of health and metrics
  godebug                   what "carpool.godebug" matches, or ""
  user, group               who it runs as, where the image's own user will not
                            do; 0: the image's, or the pod's
  native                    true: a sidecar of Kubernetes 1.29 and later
                            false: an ordinary container of an older cluster
  secret                    the Secret whose files settings name, what
                            "carpool.secretName" matches; ""
  mounts                    those of "carpool.sidecarMounts" that were chosen
  noProxy                   what "carpool.noProxy" has, and the user's entries
                            behind it, each after a comma
  nonProxyHosts             the user's entries as Java writes them, each after
                            a |: .example.com is *.example.com there, and IPv6
                            has brackets

Items of lists can depend on a choice. They name it under when, which is no part
of what they say: preload (the script for Node.js is written and mounted), cache (a
volume of carpool's own, in which it remembers upstreams over a restart) or secret
(not empty), and what the lists of variables have beside these.
*/}}

{{/* The container, as YAML. */}}
{{- define "carpool.container" -}}
name: carpool
image: {{ toJson .image }}
imagePullPolicy: {{ toJson .pullPolicy }}
{{- if .native }}
restartPolicy: Always
{{- end }}
ports:
  - name: carpool-admin
    containerPort: {{ .adminPort }}
env: {{ toJson .env }}
lifecycle:
  postStart: # what comes next starts when this ends: a second before a startupProbe would be asked
    exec:
      command: [/usr/local/bin/carpool, ready, "--wait", 20s]
livenessProbe:
  httpGet:
    path: /healthz
    port: {{ .adminPort }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources: {{ toJson .resources }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: ["ALL"]
  readOnlyRootFilesystem: true
  runAsNonRoot: true
{{- with .user }}
  runAsUser: {{ . }}
{{- end }}
{{- with .group }}
  runAsGroup: {{ . }}
{{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .mounts }}
volumeMounts: {{ toJson . }}
{{- end }}
{{- end }}

{{/*
What carpool's container mounts, as a YAML list. The Secret is there as a whole, for
the kubelet brings a new version into no mount of one file.
*/}}
{{- define "carpool.sidecarMounts" -}}
- name: carpool
  mountPath: /carpool
  when: preload
- name: carpool-cache
  mountPath: /cache
  when: cache
- name: carpool-secret
  mountPath: /etc/carpool/secret
  readOnly: true
  when: secret
{{- end }}

{{/*
What carpool's container has in its environment unless the user's settings say
otherwise, as a YAML list. It takes the ports and godebug. Choices are also plain
(an ordinary container), port and adminPort (not the usual one), and godebug (not
empty).
*/}}
{{- define "carpool.sidecarEnv" -}}
- name: CARPOOL_DRAIN_DELAY # the app drains at the same time and still sends
  value: 5s
  when: plain
- name: CARPOOL_PRELOAD_DIR
  value: /carpool
  when: preload
- name: CARPOOL_CACHE_DIR
  value: /cache
  when: cache
- name: CARPOOL_LISTEN
  value: 127.0.0.1:{{ .port }}
  when: port
- name: CARPOOL_ADMIN_LISTEN
  value: ":{{ .adminPort }}"
  when: adminPort
- name: GODEBUG # for upstreams that TLS as Go has it by now does not reach: an error says so, and what helps
  value: {{ toJson .godebug }}
  when: godebug
{{- end }}

{{/* The pod's volumes that it needs, as a YAML list. It takes the secret. */}}
{{- define "carpool.volumes" -}}
- name: carpool
  emptyDir:
    sizeLimit: 1Mi
  when: preload
- name: carpool-cache
  emptyDir:
    sizeLimit: 1Mi
  when: cache
- name: carpool-secret
  secret:
    secretName: {{ toJson .secret }}
    defaultMode: 420 # 0644, as the API server says where nobody does: uninject knows it again
  when: secret
{{- end }}

{{/* What the other containers mount, as a YAML list. */}}
{{- define "carpool.mounts" -}}
- name: carpool
  mountPath: /carpool
  readOnly: true
  when: preload
{{- end }}

{{/*
What the other containers get in their environment, as a YAML list. Beside name
and value an entry can have

  when     a choice that it depends on: https, java, preload or preloadHttps
  with     a variable that it belongs to: a container that has that one, in
           either spelling, with another value than here does without this one
  extend   where the variable is there already, with a value of its own, this one
           is put behind it and this separator. A blank joins options, a comma
           hosts; the host "*" stays alone. Options have one spelling, of other
           variables the two are one
*/}}
{{- define "carpool.appEnv" -}}
- name: HTTP_PROXY
  value: http://127.0.0.1:{{ .port }}
- name: http_proxy
  value: http://127.0.0.1:{{ .port }}
- name: NO_PROXY
  value: {{ toJson .noProxy }}
  with: HTTP_PROXY
  extend: ","
- name: no_proxy
  value: {{ toJson .noProxy }}
  with: HTTP_PROXY
  extend: ","
- name: grpc_proxy # empty: gRPC tunnels to one address of a name else, and balances no more
  value: ""
  with: HTTP_PROXY
- name: HTTPS_PROXY
  value: http://127.0.0.1:{{ .port }}
  when: https
- name: https_proxy
  value: http://127.0.0.1:{{ .port }}
  when: https
- name: JAVA_TOOL_OPTIONS
  value: {{ printf "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=%v -Dhttp.nonProxyHosts=localhost|127.*|[::1]|169.254.*|[fd00:ec2:*|100.100.100.200|[fd00:100::100:200]|168.63.129.16|[fd20:ce::254]|[fd00:a9fe:a9fe::1]|192.0.0.192|[fd00:c1::a9fe:a9fe]|[fd00:42::42]|metadata.google.internal|metadata.google.internal.|metadata|metadata.tencentyun.com|kubernetes.default.svc%s" .port .nonProxyHosts | toJson }}
  when: java
  extend: " "
- name: NODE_OPTIONS
  value: --require=/carpool/preload.js
  when: preload
  extend: " "
- name: CARPOOL_PRELOAD_HTTPS # read by the script
  value: "true"
  when: preloadHttps
{{- end }}

{{/*
What is not sent through carpool, before what the user adds: carpool refuses the
addresses of clouds' services, which the app alone reaches. These entries, and
Java's above, are those of proxy/policy: "go test ./cmd/carpool/internal/inject
-update" writes them.
*/}}
{{- define "carpool.noProxy" -}}
localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2,169.254.170.23,169.254.0.23,169.254.42.42,100.100.100.200,fd00:100::100:200,fd00:ec2::254,fd00:ec2::23,168.63.129.16,fd20:ce::254,fd00:a9fe:a9fe::1,192.0.0.192,fd00:c1::a9fe:a9fe,fd00:42::42,169.254.0.0/16,metadata.google.internal,metadata.google.internal.,metadata,metadata.tencentyun.com,kubernetes.default.svc,$(KUBERNETES_SERVICE_HOST)
{{- end }}

{{/*
What an entry of the user's list has to match, if it is no IPv6 address: a name,
with all below it or not, or an IPv4 address, each with a port or not; a range of
IPv4; a variable. Some clients fail at the start where anything else is among the
entries: httpx at brackets, at ranges of IPv6 and at letters beyond ASCII.
*/}}
{{- define "carpool.noProxyEntry" -}}
^((\*?\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?(:[0-9]{1,5})?|[0-9]{1,3}(\.[0-9]{1,3}){3}/(3[0-2]|[12]?[0-9])|\$\([A-Za-z_][A-Za-z0-9_]*\))$
{{- end }}

{{/* What a message says that an entry has to be. */}}
{{- define "carpool.noProxyWant" -}}
names, IP addresses without brackets and IPv4 ranges, with commas between them
{{- end }}

{{/* What GODEBUG has to match, and what a message says that it has to be. */}}
{{- define "carpool.godebug" -}}
^([a-z0-9]+=[a-z0-9]+(,[a-z0-9]+=[a-z0-9]+)*)?$
{{- end }}
{{- define "carpool.godebugWant" -}}
name=value with commas between them, such as tlsrsakex=1
{{- end }}

{{/* What a Secret's name has to match, in at most 253 characters, and what a message says that it has to be. */}}
{{- define "carpool.secretName" -}}
^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)?$
{{- end }}
{{- define "carpool.secretNameWant" -}}
the name of a Secret, such as partner-tls
{{- end }}
