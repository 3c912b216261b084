{{/*
How sidecars get into pods, as JSON: {"mode": "policy" or "webhook", "api": of the
policy, "why"}. Helm knows a cluster's kinds only when it speaks to one: helm
template has its version alone, and --api-versions.
*/}}
{{- define "carpool.injection" -}}
{{- $group := "admissionregistration.k8s.io/" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- $seen := .Capabilities.APIVersions.Has "v1/Pod" -}}
{{- $api := "" -}}
{{- $why := "" -}}
{{- if .Capabilities.APIVersions.Has (print $group "v1/MutatingAdmissionPolicy") -}}
{{- $api = "v1" -}}
{{- $why = "the cluster has MutatingAdmissionPolicy v1" -}}
{{- else if .Capabilities.APIVersions.Has (print $group "v1beta1/MutatingAdmissionPolicy") -}}
{{- $api = "v1beta1" -}}
{{- $why = "the cluster has MutatingAdmissionPolicy v1beta1, and no v1" -}}
{{- else if $seen -}}
{{- $why = print "the cluster, " $version ", has no MutatingAdmissionPolicy" -}}
{{- else if semverCompare ">=1.36-0" $version -}}
{{- $api = "v1" -}}
{{- $why = print "rendered for " $version ", which has MutatingAdmissionPolicy v1 (from 1.36; --kube-version and --api-versions say for what)" -}}
{{- else -}}
{{- $why = print "rendered for " $version ", which has no MutatingAdmissionPolicy v1 (from 1.36; --kube-version and --api-versions say for what)" -}}
{{- end -}}
{{- if eq .Values.injection "webhook" -}}
{{- dict "mode" "webhook" "api" "" "why" "injection: webhook" | toJson -}}
{{- else if and (eq .Values.injection "policy") (not $api) -}}
{{- if or $seen (semverCompare "<1.34-0" $version) -}}
{{- fail (cat "\n\ninjection: policy needs MutatingAdmissionPolicy of admissionregistration.k8s.io, v1 (Kubernetes 1.36) or v1beta1 (1.34, if it is turned on):" $why
  "\nLeave injection out, or set it to webhook: carpool then runs a webhook. Without either, choose one of these:"
  "\n  - carpool-lib: a library chart that puts the sidecar into your own chart, on Kubernetes 1.29 and later or, with limits, before;"
  "\n  - carpool inject -f deployment.yaml | kubectl apply -f -: puts it into manifests.\n") -}}
{{- end -}}
{{- dict "mode" "policy" "api" "v1beta1" "why" (print "injection: policy, " $why) | toJson -}}
{{- else if $api -}}
{{- dict "mode" "policy" "api" $api "why" (eq .Values.injection "policy" | ternary (print "injection: policy, " $why) $why) | toJson -}}
{{- else -}}
{{- dict "mode" "webhook" "api" "" "why" $why | toJson -}}
{{- end -}}
{{- end }}

{{/* The API that the policies are of, or "" where there are none. */}}
{{- define "carpool.policyAPI" -}}
{{- with (include "carpool.injection" . | fromJson).api -}}admissionregistration.k8s.io/{{ . }}{{- end -}}
{{- end }}

{{/* Whether there is a webhook; empty is no. */}}
{{- define "carpool.webhook" -}}
{{- if or (eq (include "carpool.injection" . | fromJson).mode "webhook") .Values.webhook.keep -}}true{{- end -}}
{{- end }}

{{/* The comment at the head of what injects. */}}
{{- define "carpool.injectionComment" -}}
{{- with include "carpool.injection" . | fromJson -}}
# Sidecars come by {{ if eq .mode "policy" }}an admission policy, {{ .api }}{{ else }}a webhook{{ end }}: {{ .why }}.
{{- end -}}
{{- end }}

{{/*
Which pods get carpool, and whether their namespace has settings of its own: what
bindings and webhooks have in common, as JSON by the end of their names. They
exclude each other by their labels: two that held for one pod would inject with
different settings, one after the other.
*/}}
{{- define "carpool.selectors" -}}
{{- $inject := "carpoolproxy.github.io/inject" -}}
{{- $settings := "carpoolproxy.github.io/settings" -}}
{{- $namespaces := list (dict "key" $inject "operator" "In" "values" (list "enabled")) -}}
{{- $others := list (dict "key" $inject "operator" "NotIn" "values" (list "enabled" "disabled")) -}}
{{- $pods := list (dict "key" $inject "operator" "NotIn" "values" (list "false")) -}}
{{- $single := list (dict "key" $inject "operator" "In" "values" (list "true")) -}}
{{- $all := dict "namespaces" (dict "namespace" $namespaces "pod" $pods) "pods" (dict "namespace" $others "pod" $single) -}}
{{- if .Values.namespaceSettings.enabled -}}
{{- $with := list (dict "key" $settings "operator" "In" "values" (list "namespace")) -}}
{{- $without := list (dict "key" $settings "operator" "NotIn" "values" (list "namespace")) -}}
{{- $all = dict
  "namespaces" (dict "namespace" (concat $namespaces $without) "pod" $pods)
  "pods" (dict "namespace" (concat $others $without) "pod" $single)
  "namespaces-settings" (dict "namespace" (concat $namespaces $with) "pod" $pods "settings" true)
  "pods-settings" (dict "namespace" (concat $others $with) "pod" $single "settings" true) -}}
{{- end -}}
{{- toJson $all -}}
{{- end }}

{{/*
Pods that carpool is not for, whatever their labels. That it is there already is no
condition here: such a pod may have got containers since, which are to use it.
*/}}
{{- define "carpool.matchConditions" -}}
- name: own-network # else carpool would serve, and take ports from, the node
  expression: "!has(object.spec.hostNetwork) || !object.spec.hostNetwork"
- name: not-windows
  expression: >-
    !(has(object.spec.os) && object.spec.os.name == "windows") &&
    !(has(object.spec.nodeSelector) && "kubernetes.io/os" in object.spec.nodeSelector && object.spec.nodeSelector["kubernetes.io/os"] == "windows")
- name: not-mirror # the kubelet has started it already
  expression: >-
    !has(object.metadata.annotations) || !("kubernetes.io/config.mirror" in object.metadata.annotations)
{{- end }}
