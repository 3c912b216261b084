package hot_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/hot"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// fakePool is hot as it is told, and remembers what it was primed with.
type fakePool struct {
	mu     sync.Mutex
	hot    []pool.Warmth
	primed []pool.Warmth
}

func (p *fakePool) Hottest(most int) []pool.Warmth {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]pool.Warmth(nil), p.hot[:min(most, len(p.hot))]...)
}

func (p *fakePool) Prime(_ context.Context, list []pool.Warmth) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.primed = append(p.primed, list...)
}

func (p *fakePool) set(list ...pool.Warmth) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hot = list
}

func warmth(host string, conns int) pool.Warmth {
	return pool.Warmth{Key: pool.Key{Host: host, Port: 80}, Conns: conns}
}

// life keeps a file for a while and returns the messages of its log.
func life(dir string, p *fakePool, d time.Duration) []string {
	core, seen := observer.New(zap.InfoLevel)
	m := hot.Keep(dir, p, zap.New(core))
	synctest.Wait()
	time.Sleep(d)
	m.Close()
	var lines []string
	for _, e := range seen.All() {
		lines = append(lines, e.Message)
	}
	return lines
}

func content(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, hot.Name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWhatWasHotIsPrimedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		secure := pool.Warmth{Key: pool.Key{TLS: true, Host: "2001:db8::1", Port: 8443}, Conns: 2}
		lines := life(dir, &fakePool{hot: []pool.Warmth{warmth("orders", 5), secure}}, time.Second)
		if got, want := content(t, dir), `{"version":1,"origins":[{"origin":"http://orders:80","conns":5},{"origin":"https://[2001:db8::1]:8443","conns":2}]}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		var next fakePool
		lines = append(lines, life(dir, &next, time.Second)...)
		if want := []pool.Warmth{warmth("orders", 5), secure}; !reflect.DeepEqual(next.primed, want) {
			t.Errorf("primed %v, want %v", next.primed, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || len(lines) != 0 {
			t.Errorf("left %v, %v, logged %v", left, err, lines)
		}
	})
}

// One that is not used is dropped, but not before it had time to be used.
func TestWhatIsNotUsedAfterARestartIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		life(dir, &fakePool{hot: []pool.Warmth{warmth("old", 1)}}, 0)
		life(dir, &fakePool{hot: []pool.Warmth{warmth("new", 2)}}, 9*time.Minute)
		if got := content(t, dir); !strings.Contains(got, "old") || !strings.Contains(got, "new") {
			t.Errorf("soon after the start: %s", got)
		}
		life(dir, &fakePool{hot: []pool.Warmth{warmth("new", 2)}}, 11*time.Minute)
		if got := content(t, dir); strings.Contains(got, "old") || !strings.Contains(got, "new") {
			t.Errorf("long after it: %s", got)
		}
	})
}

// A quiet moment is no reason to forget.
func TestWhatIsQuietIsRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := &fakePool{hot: []pool.Warmth{warmth("a", 3)}}
		m := hot.Keep(dir, p, zap.NewNop())
		time.Sleep(time.Hour)
		p.set()
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		if got := content(t, dir); !strings.Contains(got, `"http://a:80","conns":3`) {
			t.Errorf("soon after: %s", got)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := content(t, dir); strings.Contains(got, "a:80") {
			t.Errorf("long after: %s", got)
		}
		m.Close()
	})
}

func TestTheFileIsWrittenOnceAMinuteAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := &fakePool{}
		m := hot.Keep(dir, p, zap.NewNop())
		defer m.Close()
		written := map[string]bool{}
		for i := range 600 {
			p.set(warmth(fmt.Sprint("a", i), 1))
			time.Sleep(time.Second)
			synctest.Wait()
			if b, err := os.ReadFile(filepath.Join(dir, hot.Name)); err == nil {
				written[string(b)] = true
			}
		}
		if len(written) != 10 {
			t.Errorf("in ten minutes it was written %d times", len(written))
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var many []pool.Warmth
		for i := range 100 {
			many = append(many, warmth(fmt.Sprint("a", i), 200-i))
		}
		life(dir, &fakePool{hot: many}, 0)
		var next fakePool
		life(dir, &next, 0)
		sum := 0
		for _, w := range next.primed {
			sum += w.Conns
		}
		if len(next.primed) != 4 || sum != 64 || next.primed[0] != warmth("a0", 16) {
			t.Errorf("%d connections: %v", sum, next.primed)
		}
		for i := range many {
			many[i].Conns = 1
		}
		life(dir, &fakePool{hot: many}, 11*time.Minute)
		next = fakePool{}
		if life(dir, &next, 0); len(next.primed) != 32 {
			t.Errorf("%d origins", len(next.primed))
		}
	})
}

// Nothing in the file can do more than leave carpool without a memory.
func TestABadFileIsIgnoredWithALogLine(t *testing.T) {
	good := `{"origin":"http://a:80","conns":1}`
	for name, text := range map[string]string{
		"empty":            "",
		"no JSON":          "\x00\x01\x02",
		"cut off":          `{"version":1,"origins":[` + good,
		"another version":  `{"version":2,"origins":[` + good + `]}`,
		"no version":       `{"origins":[` + good + `]}`,
		"foreign":          `{"version":1,"origins":[],"name":"app"}`,
		"a list":           `[1]`,
		"more behind it":   `{"version":1,"origins":[` + good + `]} {}`,
		"a path":           `{"version":1,"origins":[{"origin":"http://a/b","conns":1}]}`,
		"no origin":        `{"version":1,"origins":[{"conns":1}]}`,
		"no connection":    `{"version":1,"origins":[{"origin":"http://a:80"}]}`,
		"too many":         `{"version":1,"origins":[{"origin":"http://a:80","conns":17}]}`,
		"fewer than none":  `{"version":1,"origins":[{"origin":"http://a:80","conns":-1}]}`,
		"too many in all":  `{"version":1,"origins":[` + strings.Repeat(`{"origin":"http://a:80","conns":16},`, 4) + good + `]}`,
		"too many origins": `{"version":1,"origins":[` + strings.Repeat(good+",", 32) + good + `]}`,
		"too large":        `{"version":1,"origins":[` + good + `]}` + strings.Repeat(" ", 64<<10),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, hot.Name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				p := &fakePool{hot: []pool.Warmth{warmth("new", 1)}}
				lines := life(dir, p, 0)
				if len(p.primed) != 0 || len(lines) != 1 || !strings.Contains(lines[0], "starts without it") {
					t.Errorf("primed %v, logged %q", p.primed, lines)
				}
				if got := content(t, dir); !strings.Contains(got, "new") {
					t.Errorf("it is not replaced: %s", got)
				}
			})
		})
	}
}

// A folder of that name, or none to write to: carpool goes on, and says so once.
func TestADirectoryThatCannotBeWrittenToCostsOneLogLine(t *testing.T) {
	for name, prepare := range map[string]func(dir string) string{
		"no directory":       func(dir string) string { return filepath.Join(dir, "none") },
		"a file":             func(dir string) string { return file(dir, "none") },
		"a folder as a file": func(dir string) string { _ = os.MkdirAll(filepath.Join(dir, hot.Name, "x"), 0o700); return dir },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &fakePool{hot: []pool.Warmth{warmth("a", 1)}}
				dir := prepare(t.TempDir())
				lines := life(dir, p, 10*time.Minute)
				n := 0
				for _, l := range lines {
					if strings.Contains(l, "are not remembered") {
						n++
					}
				}
				if n != 1 || len(p.primed) != 0 {
					t.Errorf("logged %q", lines)
				}
			})
		})
	}
}

func file(dir, name string) string {
	path := filepath.Join(dir, name)
	_ = os.WriteFile(path, nil, 0o600)
	return path
}

// Whoever is killed in the middle leaves the file as it was, and something beside
// it that is not in the way.
func TestAFileThatWasNotFinishedIsNotInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		life(dir, &fakePool{hot: []pool.Warmth{warmth("a", 1)}}, 0)
		file(dir, hot.Name+".next")
		p := &fakePool{hot: []pool.Warmth{warmth("b", 1)}}
		if lines := life(dir, p, 0); len(lines) != 0 || len(p.primed) != 1 || !strings.Contains(content(t, dir), "b:80") {
			t.Errorf("primed %v, logged %v: %s", p.primed, lines, content(t, dir))
		}
	})
}
