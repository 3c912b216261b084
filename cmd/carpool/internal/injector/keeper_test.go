package injector_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/injector"
)

func configOf() injector.Config {
	return injector.Config{
		Configuration: "carpool", Webhooks: ours, Host: host, Namespace: "carpool-system", Secret: "carpool-injector",
	}
}

// replicas returns keepers of one cluster that have looked at nothing yet.
func replicas(c *cluster, n int) (all []*injector.Keeper) {
	for range n {
		all = append(all, injector.NewKeeper(configOf(), calls{c}, zap.NewNop()))
	}
	return all
}

// look lets replicas look, in turn, until all are ready.
func look(t *testing.T, all ...*injector.Keeper) {
	t.Helper()
	for range 10 {
		ready := true
		for _, k := range all {
			ready = injector.Look(k, t.Context()) == nil && ready
		}
		if ready {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("not ready: %v", injector.Ready(all[0]))
}

// taken fails the test if the API server does not take what ready replicas serve.
func taken(t *testing.T, c *cluster, all ...*injector.Keeper) {
	t.Helper()
	for i, k := range all {
		if injector.Ready(k) != nil {
			continue
		}
		for _, name := range ours {
			if err := injector.Holds(k.Leaf(), host, c.bundleOf(name)); err != nil {
				t.Fatalf("%v: replica %d is ready and serves what the API server does not take for %s: %v", time.Now(), i, name, err)
			}
		}
	}
}

func TestReplicasThatStartTogetherAgreeOnOneCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		all := replicas(c, 3)
		ctx, stop := context.WithCancel(t.Context())
		for _, k := range all {
			go k.Run(ctx)
		}
		time.Sleep(injector.Every)
		stop()
		synctest.Wait()
		for i, k := range all {
			if err := injector.Ready(k); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
			if !bytes.Equal(k.Leaf().Raw, all[0].Leaf().Raw) {
				t.Errorf("replica %d serves another certificate than replica 0", i)
			}
		}
		taken(t, c, all...)
		if n := len(injector.Certificates(c.bundleOf(ours[0]))); n != 1 {
			t.Errorf("%d authorities are published, want one", n)
		}
		if len(c.bundleOf("somebody.else")) > 0 {
			t.Error("somebody else's webhook was changed")
		}
		if labels := c.objects[secretPath]["metadata"].(object)["labels"]; fmt.Sprint(labels) != "map[a:b]" {
			t.Errorf("the Secret lost its labels: %v", labels)
		}
	})
}

// A replica is ready only when the API server would take its certificate.
func TestAReplicaIsNotReadyBeforeItsCertificateIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		k := replicas(c, 1)[0]
		if err := injector.Ready(k); err == nil {
			t.Error("ready without a certificate")
		}
		c.before = func(r request) {
			if r.Path == hooksPath && injector.Ready(k) == nil {
				t.Error("ready before it is published")
			}
		}
		look(t, k)
		c.change(hooksPath, func(o object) { o["webhooks"] = o["webhooks"].([]any)[:2] })
		if err := injector.Look(k, t.Context()); err == nil || !strings.Contains(err.Error(), ours[1]) {
			t.Errorf("a webhook is gone: %v", err)
		}
	})
}

// The bundle that a GitOps controller, or an older chart, has emptied comes back.
func TestABundleThatSomebodyEmptiesIsPublishedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		all := replicas(c, 2)
		look(t, all...)
		leaf := all[0].Leaf()
		c.change(hooksPath, func(o object) {
			o["webhooks"] = []any{webhookNamed(ours[1]), webhookNamed(ours[0]), webhookNamed("new")}
		})
		look(t, all...)
		taken(t, c, all...)
		if !bytes.Equal(leaf.Raw, all[0].Leaf().Raw) {
			t.Error("another certificate was made")
		}
	})
}

func TestAnEmptiedSecretGetsBackWhatIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		all := replicas(c, 2)
		look(t, all...)
		leaf := all[0].Leaf()
		c.change(secretPath, func(o object) { delete(o, "data") })
		look(t, all...)
		taken(t, c, all...)
		if !bytes.Equal(leaf.Raw, all[0].Leaf().Raw) || !bytes.Equal(leaf.Raw, all[1].Leaf().Raw) {
			t.Error("another certificate was made")
		}
		young := replicas(c, 1)
		look(t, young...)
		if !bytes.Equal(leaf.Raw, young[0].Leaf().Raw) {
			t.Error("the Secret has another certificate")
		}
	})
}

func TestACertificateThatEndedWhileNothingRanIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		old := replicas(c, 1)
		look(t, old...)
		time.Sleep(2 * injector.Lifetime)
		if injector.Ready(old[0]) == nil {
			t.Error("ready with a certificate that has ended")
		}
		young := replicas(c, 1)
		look(t, young...)
		taken(t, c, young...)
	})
}

// A cluster without an API server for a while, or without the Secret, costs nobody
// the certificate that he has.
func TestWhatIsServedOutlivesTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		k := replicas(c, 1)[0]
		look(t, k)
		c.down = true
		if injector.Look(k, t.Context()) == nil || injector.Ready(k) != nil {
			t.Errorf("the API server is down: %v", injector.Ready(k))
		}
		c.down = false
		delete(c.objects, secretPath)
		if err := injector.Look(k, t.Context()); err == nil || !strings.Contains(err.Error(), "helm upgrade") || injector.Ready(k) != nil {
			t.Errorf("the Secret is gone: %v, %v", err, injector.Ready(k))
		}
	})
}

// TestARotationNeverServesWhatTheAPIServerDoesNotTake plays a year with replicas that
// come, go, sleep and meet, and an API server that is away now and then, and looks
// after every step.
func TestARotationNeverServesWhatTheAPIServerDoesNotTake(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			c := newCluster()
			all := replicas(c, 3)
			look(t, all...)
			leaves := map[string]bool{}
			end := time.Now().Add(injector.Lifetime * 2)
			for time.Now().Before(end) {
				k := random.IntN(len(all))
				c.before = nil
				switch random.IntN(20) {
				case 0: // another replica looks just before this one writes
					other := all[(k+1)%len(all)]
					c.before = func(request) { c.before = nil; _ = injector.Look(other, t.Context()) }
				case 1:
					c.down = true
				case 2:
					all[k] = replicas(c, 1)[0]
				}
				_ = injector.Look(all[k], t.Context())
				c.down = false
				taken(t, c, all...)
				for _, k := range all {
					if l := k.Leaf(); l != nil {
						leaves[string(l.Raw)] = true
					}
				}
				if n := len(injector.Certificates(c.bundleOf(ours[0]))); n > 2 {
					t.Fatalf("%d authorities are published", n)
				}
				time.Sleep(pause(random, c))
			}
			if len(leaves) < 3 {
				t.Errorf("seed %d: %d certificates in two lifetimes, want one for each renewal", seed, len(leaves))
			}
			look(t, all...)
		})
	}
}

// pause is some seconds while a rotation is under way, and hours else.
func pause(random *rand.Rand, c *cluster) time.Duration {
	if len(injector.Certificates(c.bundleOf(ours[0]))) > 1 {
		return time.Duration(random.IntN(300)) * time.Second
	}
	return time.Duration(random.IntN(12)) * time.Hour
}

// The next authority is published for a while before anything from it is served, and
// the one before it for a while after.
func TestOldAndNewAuthorityArePublishedWhileTheCertificateChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		all := replicas(c, 2)
		look(t, all...)
		first := all[0].Leaf()
		count := func() int { return len(injector.Certificates(c.bundleOf(ours[0]))) }
		time.Sleep(injector.Renewal)
		look(t, all...)
		if count() != 2 || !bytes.Equal(all[0].Leaf().Raw, first.Raw) {
			t.Fatalf("when it is due: %d authorities, another certificate: %t", count(), !bytes.Equal(all[0].Leaf().Raw, first.Raw))
		}
		time.Sleep(injector.Overlap - time.Minute)
		look(t, all...)
		if !bytes.Equal(all[0].Leaf().Raw, first.Raw) {
			t.Fatal("the new certificate is served before its time")
		}
		time.Sleep(2 * time.Minute)
		look(t, all[0]) // and the other one sleeps
		if bytes.Equal(all[0].Leaf().Raw, first.Raw) || count() != 2 {
			t.Fatalf("the new certificate is not served, or the old authority is gone: %d", count())
		}
		taken(t, c, all...)
		time.Sleep(injector.Overlap)
		look(t, all[0])
		if count() != 1 {
			t.Fatalf("%d authorities in the end", count())
		}
		_ = injector.Look(all[1], t.Context())
		taken(t, c, all...)
	})
}

// Certificates of somebody else are read again when they change, and published by
// somebody else.
func TestProvidedCertificatesAreServedAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		made := replicas(c, 1)[0]
		look(t, made)
		dir := t.TempDir()
		data := c.objects[secretPath]["data"].(object)
		writePair(t, dir, data)
		config := configOf()
		config.Secret, config.Certificates = "", dir
		k := injector.NewKeeper(config, calls{c}, zap.NewNop())
		writes := c.writes
		look(t, k)
		if c.writes != writes || !bytes.Equal(k.Leaf().Raw, made.Leaf().Raw) {
			t.Errorf("%d writes, another certificate: %t", c.writes-writes, !bytes.Equal(k.Leaf().Raw, made.Leaf().Raw))
		}
		other := newCluster() // of which nothing is published here
		look(t, replicas(other, 1)...)
		writePair(t, dir, other.objects[secretPath]["data"].(object))
		if err := injector.Look(k, t.Context()); err != nil || !bytes.Equal(k.Leaf().Raw, made.Leaf().Raw) {
			t.Errorf("a certificate that the API server does not take takes the place of one that it does: %v", err)
		}
		young := injector.NewKeeper(config, calls{c}, zap.NewNop())
		if err := injector.Look(young, t.Context()); err == nil || !strings.Contains(err.Error(), "does not hold") {
			t.Errorf("ready with a certificate that the API server does not take: %v", err)
		}
	})
}

func writePair(t *testing.T, dir string, data object) {
	t.Helper()
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), decoded(t, data[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
