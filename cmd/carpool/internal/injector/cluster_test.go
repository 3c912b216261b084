package injector_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/kube"
)

// Names of the cluster's objects.
const (
	host       = "carpool-injector.carpool-system.svc"
	secretPath = "/api/v1/namespaces/carpool-system/secrets/carpool-injector"
	hooksPath  = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/carpool"
)

var ours = []string{"namespaces.carpoolproxy.github.io", "pods.carpoolproxy.github.io"}

type object = map[string]any

// A cluster is as much of an API server as an injector speaks to: it has objects by
// their paths, and refuses to write what has changed since it was read.
type cluster struct {
	mu      sync.Mutex // guards all below
	objects map[string]object
	version int
	down    bool            // it answers 503
	before  func(w request) // is called before a write is carried out; nil: nothing is
	writes  int
}

// request is one that writes.
type request struct{ Method, Path string }

func newCluster() *cluster {
	c := &cluster{objects: map[string]object{}}
	c.put(secretPath, object{"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": object{"name": "carpool-injector", "labels": object{"a": "b"}}})
	c.put(hooksPath, object{"metadata": object{"name": "carpool"}, "webhooks": []any{
		webhookNamed("somebody.else"), webhookNamed(ours[0]), webhookNamed(ours[1]),
	}})
	return c
}

func webhookNamed(name string) object { return object{"name": name, "clientConfig": object{}} }

// put writes an object as its version demands, or anew.
func (c *cluster) put(path string, o object) {
	c.version++
	o = copied(o)
	o["metadata"].(object)["resourceVersion"] = strconv.Itoa(c.version)
	c.objects[path] = o
}

func copied(o object) (out object) {
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

// change lets somebody else change an object.
func (c *cluster) change(path string, how func(object)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := copied(c.objects[path])
	how(o)
	c.put(path, o)
}

// ServeHTTP answers as the API server does.
func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Method != http.MethodGet && c.before != nil {
		before := c.before
		c.mu.Unlock()
		before(request{r.Method, r.URL.Path})
		c.mu.Lock()
	}
	o, ok := c.objects[r.URL.Path]
	switch {
	case c.down:
		answer(w, http.StatusServiceUnavailable, object{"message": "down"})
		return
	case !ok:
		answer(w, http.StatusNotFound, object{"message": r.URL.Path + " not found"})
		return
	case r.Method == http.MethodPut:
		var in object
		_ = json.NewDecoder(r.Body).Decode(&in)
		if in["metadata"].(object)["resourceVersion"] != o["metadata"].(object)["resourceVersion"] {
			answer(w, http.StatusConflict, object{"message": "the object has been modified"})
			return
		}
		c.put(r.URL.Path, in)
		c.writes++
	case r.Method == http.MethodPatch:
		patched, err := patch(copied(o), r)
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, object{"message": err.Error()})
			return
		}
		c.put(r.URL.Path, patched)
		c.writes++
	}
	answer(w, http.StatusOK, c.objects[r.URL.Path])
}

func answer(w http.ResponseWriter, code int, o object) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

// patch carries out a JSON Patch of tests and additions of strings.
func patch(o object, r *http.Request) (object, error) {
	if got := r.Header.Get("Content-Type"); got != kube.JSONPatch {
		return nil, fmt.Errorf("content type %q", got)
	}
	var ops []struct{ Op, Path, Value string }
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		return nil, err
	}
	for _, op := range ops {
		keys := strings.Split(op.Path[1:], "/")
		var at any = o
		for _, key := range keys[:len(keys)-1] {
			at = step(at, key)
		}
		last := keys[len(keys)-1]
		switch op.Op {
		case "test":
			if got := step(at, last); got != op.Value {
				return nil, fmt.Errorf("testing %s: %v", op.Path, got)
			}
		case "add":
			at.(object)[last] = op.Value
		default:
			return nil, fmt.Errorf("operation %q", op.Op)
		}
	}
	return o, nil
}

func step(at any, key string) any {
	if list, ok := at.([]any); ok {
		i, err := strconv.Atoi(key)
		if err != nil || i >= len(list) {
			return nil
		}
		return list[i]
	}
	return at.(object)[key]
}

// bundleOf returns what is published with a webhook, as PEM.
func (c *cluster) bundleOf(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.objects[hooksPath]["webhooks"].([]any) {
		if w := w.(object); w["name"] == name {
			text, _ := w["clientConfig"].(object)["caBundle"].(string)
			pem, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				panic(err)
			}
			return pem
		}
	}
	return nil
}

// calls speaks to a cluster without a network, so that time can be the test's.
type calls struct{ to *cluster }

func (c calls) Get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, into)
}

func (c calls) Metadata(ctx context.Context, path string, into any) error {
	return c.Get(ctx, path, into)
}

func (c calls) Put(ctx context.Context, path string, object, into any) error {
	return c.do(ctx, http.MethodPut, path, "application/json", object, into)
}

func (c calls) Patch(ctx context.Context, path string, patch, into any) error {
	return c.do(ctx, http.MethodPatch, path, kube.JSONPatch, patch, into)
}

func (c calls) do(ctx context.Context, method, path, contentType string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(string(text)))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	c.to.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		var status struct{ Message string }
		_ = json.Unmarshal(w.Body.Bytes(), &status)
		return &kube.StatusError{Code: w.Code, Message: status.Message}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), into)
}
