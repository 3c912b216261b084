package injector

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/kube"
)

const (
	// freshFor is for how long something that was read is not read again, and useFor
	// for how long it has to do while it cannot be read.
	freshFor = 5 * time.Second
	useFor   = 5 * time.Minute
	// mostKept bounds how many things are remembered.
	mostKept = 4096
)

// A cache remembers what was read of the API server, by its path. It is safe for
// concurrent use; two who come at a time may both ask.
type cache[T any] struct {
	get func(ctx context.Context, path string) (T, error)

	mu   sync.Mutex // guards kept; never held across I/O
	kept map[string]kept[T]
}

type kept[T any] struct {
	value T
	at    time.Time
}

// read returns what is at a path.
func (c *cache[T]) read(ctx context.Context, path string) (T, error) {
	c.mu.Lock()
	old, ok := c.kept[path]
	c.mu.Unlock()
	now := time.Now()
	if ok && now.Sub(old.at) < freshFor {
		return old.value, nil
	}
	value, err := c.get(ctx, path)
	if err != nil {
		if ok && now.Sub(old.at) < useFor {
			return old.value, nil
		}
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || len(c.kept) >= mostKept {
		c.kept = map[string]kept[T]{}
	}
	c.kept[path] = kept[T]{value, now}
	return value, nil
}

// namespaces knows what namespaces say about their pods.
type namespaces struct {
	settings cache[map[string]string] // of their ConfigMaps; nil: there is none
	limits   cache[[]inject.Limits]
}

func newNamespaces(from api) *namespaces {
	return &namespaces{
		settings: cache[map[string]string]{get: func(ctx context.Context, path string) (map[string]string, error) {
			var object struct{ Data map[string]string }
			err := from.Get(ctx, path, &object)
			if kube.IsNotFound(err) {
				return nil, nil
			}
			if object.Data == nil {
				object.Data = map[string]string{}
			}
			return object.Data, err
		}},
		limits: cache[[]inject.Limits]{get: func(ctx context.Context, path string) ([]inject.Limits, error) {
			var list limitRanges
			err := from.Get(ctx, path, &list)
			return list.limits(), err
		}},
	}
}

// settingsOf returns the data of a namespace's ConfigMap carpool, or nil.
func (n *namespaces) settingsOf(ctx context.Context, namespace string) (map[string]string, error) {
	return n.settings.read(ctx, "/api/v1/namespaces/"+url.PathEscape(namespace)+"/configmaps/carpool")
}

// limitsOf returns what a namespace's LimitRanges say.
func (n *namespaces) limitsOf(ctx context.Context, namespace string) ([]inject.Limits, error) {
	return n.limits.read(ctx, "/api/v1/namespaces/"+url.PathEscape(namespace)+"/limitranges")
}

// limitRanges is what is read of a LimitRangeList.
type limitRanges struct {
	Items []*limitRange `json:"items"`
}

type limitRange struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		Limits []map[string]json.RawMessage `json:"limits"`
	} `json:"spec"`
}

// limits returns those of each LimitRange, by the order of their names.
func (l limitRanges) limits() (all []inject.Limits) {
	slices.SortFunc(l.Items, func(a, b *limitRange) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	for _, r := range l.Items {
		all = append(all, r.ofContainers())
	}
	return all
}

// ofContainers returns what a LimitRange says of containers. Of several bounds of one
// kind on one resource the first counts.
func (r *limitRange) ofContainers() inject.Limits {
	all := inject.Limits{}
	for _, l := range r.Spec.Limits {
		if string(l["type"]) != `"Container"` {
			continue
		}
		for field, text := range l {
			var quantities map[string]string
			if json.Unmarshal(text, &quantities) != nil {
				continue // the type
			}
			for resource, quantity := range quantities {
				if all[field] == nil {
					all[field] = map[string]string{}
				}
				if all[field][resource] == "" {
					all[field][resource] = quantity
				}
			}
		}
	}
	return all
}
