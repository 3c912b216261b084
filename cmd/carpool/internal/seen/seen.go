// Package seen remembers which origins the app has asked for, from the start on: what a list of hosts to be allowed can
// begin with.
package seen

import (
	"cmp"
	"sort"
	"sync"

	"github.com/carpoolproxy/carpool/pool"
)

// most is how many origins are remembered.
const most = 1024

// Origins are those that were noted. The zero value has none. It is safe for concurrent use.
type Origins struct {
	mu   sync.Mutex // guards what follows, and is held for nothing else
	keys map[pool.Key]struct{}
	full bool // one found no room
}

// Note remembers an origin, if there is room for it.
func (o *Origins) Note(k pool.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.keys[k]; known {
		return
	}
	if len(o.keys) == most {
		o.full = true
		return
	}
	if o.keys == nil {
		o.keys = map[pool.Key]struct{}{}
	}
	o.keys[k] = struct{}{}
}

// List is what can be told of Origins, as JSON.
type List struct {
	// Origins are sorted by host, port and scheme.
	Origins []Origin `json:"origins"`
	// Complete says that there was room for all.
	Complete bool `json:"complete"`
}

// Origin is one of a List. Those of tunnels are without TLS, for carpool speaks none there.
type Origin struct {
	// Host is a name in lower case, or an IP address without brackets.
	Host string `json:"host"`
	Port uint16 `json:"port"`
	TLS  bool   `json:"tls"`
}

// List returns what was noted.
func (o *Origins) List() List {
	o.mu.Lock()
	l := List{Origins: make([]Origin, 0, len(o.keys)), Complete: !o.full}
	for k := range o.keys {
		l.Origins = append(l.Origins, Origin{k.Host, k.Port, k.TLS})
	}
	o.mu.Unlock()
	// Package sort: slices would add its sorting of these large values to the binary.
	sort.Slice(l.Origins, func(i, j int) bool {
		a, b := l.Origins[i], l.Origins[j]
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(a.scheme(), b.scheme())) < 0
	})
	return l
}

func (o Origin) scheme() string {
	if o.TLS {
		return "https"
	}
	return "http"
}
