package injector

import (
	"context"
	"net/url"
	"time"

	"go.uber.org/zap"
)

// What labels and annotations are called.
const (
	label            = "carpoolproxy.github.io/inject"
	statusAnnotation = "carpoolproxy.github.io/status"
	mirrorAnnotation = "kubernetes.io/config.mirror"
)

const (
	// countEvery is how often pods are counted.
	countEvery = 5 * time.Minute
	// page is how many pods are read at a time.
	page = "500"
	// most bounds how many namespaces are told of by name.
	most = 200
	// others is what the rest of them is called.
	others = "other"
)

// A counter finds the pods that should have carpool and do not: born while no replica
// answered, or older than the label of their namespace.
type counter struct {
	api interface {
		Metadata(ctx context.Context, path string, into any) error
	}
	log *zap.Logger
}

// run counts again and again until ctx ends, and tells the counts.
func (c counter) run(ctx context.Context, tell func(map[string]int)) {
	for {
		missed, err := c.count(ctx)
		if err != nil {
			c.log.Warn("pods without carpool are not counted", zap.String("error", err.Error()))
		} else {
			tell(missed)
		}
		timer := time.NewTimer(countEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// objects is a page of a list, less what is no metadata.
type objects struct {
	Metadata struct {
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []struct {
		Metadata metadata `json:"metadata"`
	} `json:"items"`
}

// count returns how many there are by namespace; those with none have no entry.
func (c counter) count(ctx context.Context) (map[string]int, error) {
	missed := map[string]int{}
	add := func(m metadata) {
		if _, mirror := m.Annotations[mirrorAnnotation]; mirror || m.Annotations[statusAnnotation] != "" {
			return
		}
		name := m.Namespace
		if _, there := missed[name]; !there && len(missed) >= most {
			name = others
		}
		missed[name]++
	}
	not := map[string]bool{} // whose pods are looked at apart, or not at all
	err := c.each(ctx, "/api/v1/namespaces", label+" in (enabled,disabled)", "", func(m metadata) { not[m.Name] = m.Labels[label] == "enabled" })
	if err != nil {
		return nil, err
	}
	for name, enabled := range not {
		if !enabled {
			continue
		}
		if err := c.each(ctx, "/api/v1/namespaces/"+url.PathEscape(name)+"/pods", label+" != false", running, add); err != nil {
			return nil, err
		}
	}
	err = c.each(ctx, "/api/v1/pods", label+" = true", running, func(m metadata) {
		if _, apart := not[m.Namespace]; !apart {
			add(m)
		}
	})
	return missed, err
}

// running selects pods that have not ended, and are not on the node's network.
const running = "spec.hostNetwork=false,status.phase!=Succeeded,status.phase!=Failed"

// each calls do for the metadata of all objects in a list.
func (c counter) each(ctx context.Context, path, labels, fields string, do func(metadata)) error {
	query := url.Values{"labelSelector": {labels}, "limit": {page}}
	if fields != "" {
		query.Set("fieldSelector", fields)
	}
	for {
		var list objects
		if err := c.api.Metadata(ctx, path+"?"+query.Encode(), &list); err != nil {
			return err
		}
		for _, item := range list.Items {
			do(item.Metadata)
		}
		if list.Metadata.Continue == "" {
			return nil
		}
		query.Set("continue", list.Metadata.Continue)
	}
}
