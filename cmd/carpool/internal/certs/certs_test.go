package certs_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// watched is a Keeper at work, and what it has told.
type watched struct {
	*certs.Keeper
	log *observer.ObservedLogs

	mu   sync.Mutex
	sets []certs.Set
}

func watch(t *testing.T, f certs.Files) *watched {
	t.Helper()
	k, err := certs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	core, log := observer.New(zap.InfoLevel)
	w := &watched{Keeper: k, log: log, sets: []certs.Set{k.Set()}}
	k.Watch(zap.New(core), func(s certs.Set) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sets = append(w.sets, s)
	})
	t.Cleanup(k.Close)
	return w
}

// nth waits for the n-th set.
func (w *watched) nth(t *testing.T, n int) certs.Set {
	t.Helper()
	testkit.Eventually(t, "the files are read again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.sets) > n
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sets) != n+1 {
		t.Errorf("%d changes, want %d", len(w.sets)-1, n)
	}
	return w.sets[n]
}

// As the kubelet does it.
func TestAProjectedVolumeThatSwapsItsLinksIsReadAgain(t *testing.T) {
	t.Parallel()
	dir, a, b := t.TempDir(), carpooltest.NewAuthority(t), carpooltest.NewAuthority(t)
	project := func(a *carpooltest.Authority, c tls.Certificate) {
		cert, key := carpooltest.PEM(t, c)
		carpooltest.Project(t, dir, map[string][]byte{"ca.crt": a.PEM(), "tls.crt": cert, "tls.key": key})
	}
	one, two := a.Issue(nil), a.Issue(nil)
	project(a, one)
	w := watch(t, certs.Files{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")})
	first := w.nth(t, 0)
	project(a, two)
	second := w.nth(t, 1)
	if second.Roots != first.Roots || second.Certificate == first.Certificate || string(second.Certificate.Certificate[0]) != string(two.Certificate[0]) {
		t.Error("not the new certificate, or other authorities")
	}
	project(b, two)
	third := w.nth(t, 2)
	if third.Roots == second.Roots || third.Certificate != second.Certificate {
		t.Error("not the new authority, or another certificate")
	}
	if s := w.Stats(); s.Renewed != 2 || s.Rejected != 0 {
		t.Errorf("%+v", s)
	}
}

func TestFilesThatAreNoGoodChangeNothing(t *testing.T) {
	t.Parallel()
	dir, a := t.TempDir(), carpooltest.NewAuthority(t)
	files := certs.Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	oldCert, oldKey := carpooltest.PEM(t, a.Issue(nil))
	newCert, newKey := carpooltest.PEM(t, a.Issue(nil))
	carpooltest.Write(t, files.CA, a.PEM())
	carpooltest.Write(t, files.Cert, oldCert)
	carpooltest.Write(t, files.Key, oldKey)
	w := watch(t, files)
	rejected := uint64(0)
	bad := func(what, says string, spoil func()) {
		t.Helper()
		spoil()
		rejected++
		testkit.Eventually(t, what+" is told", func() bool { return w.log.FilterLevelExact(zap.ErrorLevel).Len() == int(rejected) })
		errors := w.log.FilterLevelExact(zap.ErrorLevel).All()
		if n := w.Stats().Rejected; n != rejected {
			t.Errorf("%s: %d are counted", what, n)
		}
		if text, _ := errors[len(errors)-1].ContextMap()["error"].(string); !strings.Contains(text, says) {
			t.Errorf("%s: %q", what, text)
		}
	}
	bad("half a file", "CARPOOL_CLIENT_CERT_FILE", func() { carpooltest.Write(t, files.Cert, newCert[:len(newCert)/2]) })
	bad("another certificate's key", "does not match", func() { carpooltest.Write(t, files.Cert, newCert) })
	bad("no authority", "CARPOOL_CA_FILE", func() { carpooltest.Write(t, files.CA, nil) })
	bad("no file", "CARPOOL_CLIENT_KEY_FILE", func() { _ = os.Remove(files.Key) })
	carpooltest.Write(t, files.CA, a.PEM())
	carpooltest.Write(t, files.Key, newKey)
	if got := w.nth(t, 1); got.Certificate == nil || got.Roots != w.nth(t, 1).Roots {
		t.Error("no certificate")
	}
	if n := w.log.FilterLevelExact(zap.ErrorLevel).Len(); uint64(n) != rejected {
		t.Errorf("%d errors are logged, want %d", n, rejected)
	}
}

// A file system may keep whole seconds.
func TestAFileThatWasWrittenTwiceInASecondIsReadAgain(t *testing.T) {
	t.Parallel()
	a, b := carpooltest.NewAuthority(t), carpooltest.NewAuthority(t)
	file := a.File()
	second := time.Now().Truncate(time.Second)
	if err := os.Chtimes(file, second, second); err != nil {
		t.Fatal(err)
	}
	w := watch(t, certs.Files{CA: file})
	text := b.PEM()
	if len(text) != len(a.PEM()) {
		text = append(text, make([]byte, max(len(a.PEM())-len(text), 0))...)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil { // the same file
		t.Fatal(err)
	}
	if err := os.Chtimes(file, second, second); err != nil {
		t.Fatal(err)
	}
	w.nth(t, 1)
}

func TestAllBadFilesAreNamedAtTheStart(t *testing.T) {
	t.Parallel()
	dir, a := t.TempDir(), carpooltest.NewAuthority(t)
	cert, _ := carpooltest.PEM(t, a.Issue(nil))
	_, other := carpooltest.PEM(t, a.Issue(nil))
	ca, certFile, keyFile := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	carpooltest.Write(t, ca, []byte("nothing"))
	carpooltest.Write(t, certFile, cert)
	carpooltest.Write(t, keyFile, other)
	for want, f := range map[string]certs.Files{
		"CARPOOL_CA_FILE CARPOOL_CLIENT_CERT_FILE": {CA: ca, Cert: certFile, Key: keyFile},
		"CARPOOL_CA_FILE CARPOOL_CLIENT_KEY_FILE":  {CA: ca + ".not", Cert: certFile, Key: keyFile + ".not"},
	} {
		_, err := certs.Open(f)
		for _, name := range strings.Fields(want) {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("no %s in %v", name, err)
			}
		}
	}
	both := filepath.Join(dir, "both")
	cert, key := carpooltest.PEM(t, a.Issue(nil))
	carpooltest.Write(t, both, append(cert, key...))
	if k, err := certs.Open(certs.Files{Cert: both, Key: both}); err != nil || k.Set().Certificate == nil || k.Set().Roots != nil {
		t.Errorf("certificate and key in one file: %v", err)
	}
}
