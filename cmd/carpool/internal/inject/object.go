package inject

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// eachItem stands in a path for every item of a list.
const eachItem = "[]"

// templateOf is the path to the pod of most kinds, those that carpool does not
// know included: Argo's Rollout, OpenShift's DeploymentConfig, Kruise's CloneSet.
var templateOf = []string{"spec", "template"}

// podsOf says where an object of a group and kind has its pods.
var podsOf = map[string][]string{
	"/Pod":                           {},
	"/PodTemplate":                   {"template"},
	"/ReplicationController":         templateOf,
	"apps/Deployment":                templateOf,
	"apps/StatefulSet":               templateOf,
	"apps/DaemonSet":                 templateOf,
	"apps/ReplicaSet":                templateOf,
	"batch/Job":                      templateOf,
	"batch/CronJob":                  {"spec", "jobTemplate", "spec", "template"},
	"apps.kruise.io/AdvancedCronJob": {"spec", "template", "jobTemplate", "spec", "template"},
	"jobset.x-k8s.io/JobSet":         {"spec", "replicatedJobs", eachItem, "template", "spec", "template"},
	"keda.sh/ScaledJob":              {"spec", "jobTargetRef", "template"},
}

// An object is a Kubernetes object as a tree.
type object struct {
	root *yaml.Node
	kind string // and its group: apps/Deployment
}

// objects returns those in a document: it, or the items of a list, which may
// say of what kind they are or leave that to the list.
func objects(n *yaml.Node) []object { return objectsAs(n, "") }

func objectsAs(n *yaml.Node, kind string) []object {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	if text(n, "kind") != "" {
		group, _, ok := strings.Cut(text(n, "apiVersion"), "/")
		if !ok {
			group = "" // of the core group's only the version is written
		}
		kind = group + "/" + text(n, "kind")
	}
	items := get(n, "items")
	of, isList := strings.CutSuffix(kind, "List")
	if !isList || items == nil || items.Kind != yaml.SequenceNode {
		return []object{{n, kind}}
	}
	var all []object
	for _, item := range items.Content {
		all = append(all, objectsAs(item, of)...)
	}
	return all
}

// name returns what messages call an object.
func (o object) name() string {
	kind := o.kind[strings.Index(o.kind, "/")+1:]
	return strings.TrimSpace(kind + " " + text(get(o.root, "metadata"), "name"))
}

// isWorkload reports whether an object is of a kind that has pods, or has one
// where most kinds have it.
func (o object) isWorkload() bool {
	if _, known := podsOf[o.kind]; known {
		return true
	}
	list := get(get(get(get(o.root, "spec"), "template"), "spec"), containers.name)
	return o.kind != "" && list != nil && list.Kind == yaml.SequenceNode
}

// pods returns the pods of an object, those that are there.
func (o object) pods() ([]*yaml.Node, error) {
	if !o.isWorkload() {
		return nil, nil
	}
	path, known := podsOf[o.kind]
	if !known {
		path = templateOf
	}
	at := []*yaml.Node{o.root}
	for i, key := range path {
		var next []*yaml.Node
		for _, n := range at {
			if key == eachItem {
				next = append(next, n.Content...)
				continue
			}
			kind := yaml.MappingNode
			if i+1 < len(path) && path[i+1] == eachItem {
				kind = yaml.SequenceNode
			}
			v, err := child(n, key, kind)
			if err != nil {
				return nil, err
			}
			if v != nil {
				next = append(next, v)
			}
		}
		at = next
	}
	return at, nil
}

// patchKey returns a key of Kustomize's strategic merge patches that is in a
// tree, such as $patch, or "".
func patchKey(n *yaml.Node) string {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && strings.HasPrefix(c.Value, "$") {
			return c.Value
		}
		if key := patchKey(c); key != "" {
			return key
		}
	}
	return ""
}

// containersIn returns the paths to what has containers in a tree, the pods that
// are known aside: spec.tasks[0].template.spec.
func containersIn(n *yaml.Node, path string, known []*yaml.Node) []string {
	if slices.Contains(known, n) {
		return nil
	}
	var places []string
	for i, e := range entriesOf(n) {
		at := fmt.Sprintf("%s[%d]", path, i)
		if n.Kind == yaml.MappingNode {
			at = strings.TrimPrefix(path+"."+e.first.Value, ".")
			if isContainers(e) {
				if len(places) == 0 || places[len(places)-1] != path {
					places = append(places, path)
				}
				continue
			}
		}
		places = append(places, containersIn(e.value, at, known)...)
	}
	return places
}

// isContainers reports whether an entry of a mapping holds containers, or one:
// they have an image.
func isContainers(e entry) bool {
	switch e.first.Value {
	case "containers", "initContainers", "ephemeralContainers":
		return e.value.Kind == yaml.SequenceNode && slices.ContainsFunc(e.value.Content, hasImage)
	case "container":
		return hasImage(e.value)
	}
	return false
}

func hasImage(container *yaml.Node) bool { return text(container, "image") != "" }
