package injector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/kube"
)

const (
	// every is how long there is between two looks at the API server; and hurry is that
	// while this replica is not ready.
	every = 15 * time.Second
	hurry = time.Second
	// settling is how long it may take all API servers to see what is published.
	settling = time.Minute
)

// api is what a keeper needs of the API server.
type api interface {
	Get(ctx context.Context, path string, into any) error
	Put(ctx context.Context, path string, object, into any) error
	Patch(ctx context.Context, path string, patch, into any) error
}

// A keeper keeps this replica's certificate one that the API server trusts. With a
// Secret it also makes certificates and publishes who they are from.
type keeper struct {
	config Config
	api    api
	log    *zap.Logger
	now    func() time.Time

	served atomic.Pointer[served]

	// The rest is that of one goroutine, the one that looks.
	published map[string][]*x509.Certificate // by the webhook's name, as last seen
	seen      map[string]time.Time           // since when an authority is published with all webhooks, by its bytes
	mine      *generation                    // what is served, if this keeper has made it
	said      string                         // the last fault that was logged
	conflicts int                            // in a row
}

// served is a certificate and whether the API server would take it, as far as is
// known.
type served struct {
	leaf  tls.Certificate
	fault error // why not; nil: it would, until the certificate ends
}

// certificate is tls.Config.GetCertificate.
func (k *keeper) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := k.served.Load()
	if s == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return &s.leaf, nil
}

// ready returns why the API server cannot call this replica, or nil.
func (k *keeper) ready() error {
	s := k.served.Load()
	switch {
	case s == nil:
		return errors.New("there is no certificate yet")
	case s.fault != nil:
		return s.fault
	case !k.now().Before(s.leaf.Leaf.NotAfter):
		return errors.New("the certificate has ended")
	}
	return nil
}

// run looks at the API server again and again until ctx ends.
func (k *keeper) run(ctx context.Context) {
	for {
		err := k.look(ctx)
		k.tell(err)
		wait := every
		if err != nil || k.ready() != nil {
			wait = hurry
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// fewConflicts is how many in a row are nothing to tell of: another replica was
// faster.
const fewConflicts = 5

// tell logs a fault once, and that it is over.
func (k *keeper) tell(err error) {
	said := ""
	if !kube.IsConflict(err) {
		k.conflicts = 0
	} else if k.conflicts++; k.conflicts <= fewConflicts {
		return
	}
	if err != nil {
		said = err.Error()
	}
	switch {
	case said == k.said:
	case said != "":
		k.log.Error("the certificate is not kept: trying again", zap.String("error", said))
	default:
		k.log.Info("the certificate is kept again")
	}
	k.said = said
}

// look reads what there is, does the next step, if there is one, and chooses what to
// serve. Whatever fails, what is served goes on.
func (k *keeper) look(ctx context.Context) error {
	object, err := k.readPublished(ctx)
	if err != nil {
		return err
	}
	if k.config.Secret == "" {
		leaf, err := readPair(k.config.Certificates)
		if err != nil {
			return err
		}
		k.serve(leaf, nil)
		return k.ready()
	}
	s, err := k.keepSecret(ctx)
	if err != nil {
		return err
	}
	if err := k.publish(ctx, object, s.authorities()); err != nil {
		return err
	}
	k.serve(s.current.leaf, s.current)
	return k.ready()
}

// readPair reads a certificate and its key from a folder.
func readPair(dir string) (leaf tls.Certificate, err error) {
	leaf, err = tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err == nil {
		leaf.Leaf, err = x509.ParseCertificate(leaf.Certificate[0])
	}
	return leaf, err
}

// serve chooses the certificate: this one if the API server takes it, else the one
// that is served, if that is still taken.
func (k *keeper) serve(leaf tls.Certificate, made *generation) {
	fault := k.taken(leaf)
	if old := k.served.Load(); fault != nil && old != nil && k.taken(old.leaf) == nil {
		k.served.Store(&served{leaf: old.leaf})
		return
	}
	if old := k.served.Load(); old == nil || !same(old.leaf.Leaf, leaf.Leaf) {
		k.log.Info("serving a certificate", zap.Time("until", leaf.Leaf.NotAfter), zap.NamedError("not_trusted_yet", fault))
	}
	k.mine = made
	k.served.Store(&served{leaf, fault})
}

// taken returns why the API server would not take a certificate, or nil.
func (k *keeper) taken(leaf tls.Certificate) error {
	for _, name := range k.config.Webhooks {
		if err := verifies(leaf, k.config.Host, k.published[name], k.now()); err != nil {
			return fmt.Errorf("the certificate does not hold against what is published for %s: %w", name, err)
		}
	}
	return nil
}

// metadata is what is read of every object.
type metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// webhooks is what is read of a MutatingWebhookConfiguration.
type webhooks struct {
	Metadata metadata `json:"metadata"`
	Webhooks []struct {
		Name         string `json:"name"`
		ClientConfig struct {
			CABundle []byte `json:"caBundle"`
		} `json:"clientConfig"`
	} `json:"webhooks"`
}

func (k *keeper) configurationPath() string {
	return "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/" + k.config.Configuration
}

// readPublished reads whom the API server trusts.
func (k *keeper) readPublished(ctx context.Context) (w webhooks, err error) {
	if err := k.api.Get(ctx, k.configurationPath(), &w); err != nil {
		return w, err
	}
	return w, k.note(w)
}

// note remembers whom the API server trusts, and since when.
func (k *keeper) note(w webhooks) error {
	k.published = map[string][]*x509.Certificate{}
	for _, webhook := range w.Webhooks {
		if slices.Contains(k.config.Webhooks, webhook.Name) {
			k.published[webhook.Name] = certificates(webhook.ClientConfig.CABundle)
		}
	}
	before := k.seen
	k.seen = map[string]time.Time{}
	for _, c := range k.published[k.config.Webhooks[0]] {
		if !k.everywhere(c) {
			continue
		}
		since, ok := before[string(c.Raw)]
		if !ok {
			since = k.now()
		}
		k.seen[string(c.Raw)] = since
	}
	for _, name := range k.config.Webhooks {
		if _, ok := k.published[name]; !ok {
			return fmt.Errorf("there is no webhook %s in the MutatingWebhookConfiguration %s", name, k.config.Configuration)
		}
	}
	return nil
}

// everywhere reports whether an authority is published with all webhooks.
func (k *keeper) everywhere(c *x509.Certificate) bool {
	return !slices.ContainsFunc(k.config.Webhooks, func(name string) bool { return !trusts(k.published[name], c) })
}

func (k *keeper) settled(c *x509.Certificate) bool {
	since, ok := k.seen[string(c.Raw)]
	return ok && !k.now().Before(since.Add(settling))
}

// secret is what is read and written of a Secret.
type secret struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metadata          `json:"metadata"`
	Type       string            `json:"type,omitempty"`
	Data       map[string][]byte `json:"data,omitempty"`
}

// keepSecret reads the Secret, and writes it if there is something to change.
// Everything else in it stays.
func (k *keeper) keepSecret(ctx context.Context) (state, error) {
	path := "/api/v1/namespaces/" + k.config.Namespace + "/secrets/" + k.config.Secret
	var object secret
	if err := k.api.Get(ctx, path, &object); err != nil {
		if kube.IsNotFound(err) {
			err = fmt.Errorf("%w: helm upgrade brings it back", err)
		}
		return state{}, err
	}
	s := read(object.Data)
	next, changed, err := plan(s, facts{host: k.config.Host, now: k.now(), serving: k.mine, settled: k.settled, make: generate})
	if err != nil || !changed {
		return s, err
	}
	object.Data = next.data()
	if err := k.api.Put(ctx, path, object, nil); err != nil {
		return s, err
	}
	k.log.Info("certificates have changed", zap.Bool("next", next.next != nil), zap.Bool("previous", next.previous != nil))
	return next, nil
}

// operation is one of a JSON Patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value string `json:"value"`
}

// publish makes the API server trust these authorities and no others.
func (k *keeper) publish(ctx context.Context, w webhooks, authorities []*x509.Certificate) error {
	patch := []operation{{"test", "/metadata/resourceVersion", w.Metadata.ResourceVersion}}
	encoded := base64.StdEncoding.EncodeToString(bundle(authorities))
	for i, webhook := range w.Webhooks {
		if old, ours := k.published[webhook.Name]; !ours || alike(old, authorities) {
			continue
		}
		at := fmt.Sprintf("/webhooks/%d", i)
		patch = append(patch, operation{"test", at + "/name", webhook.Name}, operation{"add", at + "/clientConfig/caBundle", encoded})
	}
	if len(patch) == 1 {
		return nil
	}
	path := k.configurationPath() + "?fieldManager=carpool-injector"
	var now webhooks
	if err := k.api.Patch(ctx, path, patch, &now); err != nil {
		return err
	}
	k.log.Info("published whom the API server is to trust", zap.Int("authorities", len(authorities)))
	return k.note(now)
}
