package inject_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// FuzzInject holds any file to this: what comes out is read as YAML, doing it
// twice is doing it once, and uninject takes out all of it.
func FuzzInject(f *testing.F) {
	for _, pattern := range []string{"testdata/*.*", shared + "/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(pattern, files, err)
		}
		for _, file := range files {
			f.Add(readFile(f, file), strings.Contains(file, "preload"))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, plain bool) {
		o := inject.Defaults()
		o.Plain, o.HTTPS, o.Java, o.Preload, o.PreloadHTTPS = plain, true, true, !plain, !plain
		o.Cache, o.Secret = true, "partner-tls"
		out, _, err := inject.Inject(in, o)
		if err != nil {
			return
		}
		before, err := documents(in)
		if err != nil {
			if string(out) != string(in) && !strings.Contains(string(in), "---") { // else another document may be read and changed
				t.Fatalf("changed, though it cannot be read: %v", err)
			}
			return
		}
		if _, err := documents(out); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if again, _, err := inject.Inject(out, o); err != nil || string(again) != string(out) {
			t.Fatalf("twice is not once (%v):\n%s\nonce:\n%s", err, again, out)
		}
		back, _, err := inject.Uninject(out, inject.Defaults())
		if looksInjected(in) {
			return // what was there before cannot be told from what was put in, and may be in no form to be taken out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if diff := difference(any(meaning(t, back)), any(before)); diff != "" {
			t.Fatalf("uninject leaves something else: %s\n%s\nin between:\n%s", diff, back, out)
		}
	})
}

// looksInjected reports whether a file has anything of what inject puts in.
func looksInjected(in []byte) bool {
	for _, s := range []string{"carpool-admin", "proxyHost", "preload.js", "CARPOOL_PRELOAD_HTTPS", "injected", "127.0.0.1:3128", "_OPTIONS", "/carpool", "carpool-cache", "carpool-secret", "localhost,"} {
		if strings.Contains(string(in), s) {
			return true
		}
	}
	return false
}
