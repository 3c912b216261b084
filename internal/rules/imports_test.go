package rules_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/carpoolproxy/carpool/"

// mayImport says, for every package outside cmd, what it may import besides the
// standard library; what ends in a slash stands for all below it.
var mayImport = map[string][]string{
	"charts":                nil,
	"internal/rules":        nil,
	"internal/histogram":    {},
	"internal/list":         {},
	"internal/sock":         {"golang.org/x/sys/"},
	"internal/testkit":      nil, // for tests: no program links it
	"proxy/http1":           {"golang.org/x/sys/"},
	"proxy/http1/http1test": nil, // for tests: no program links it

	"internal/testkit/nameserver": {"golang.org/x/net/dns/dnsmessage"}, // for tests: no program links it

	"proxy/policy": {"golang.org/x/sys/"},
	"pool":         {module + "internal/sock", module + "internal/list", module + "internal/histogram", module + "pool/names", module + "pool/h2", "golang.org/x/"},
	"pool/h2":      {module + "internal/sock", "golang.org/x/net/http2/hpack"},
	"pool/names":   {module + "internal/list", "golang.org/x/net/dns/dnsmessage"},
	"proxy": {
		module + "proxy/http1", module + "proxy/policy", module + "internal/sock", module + "internal/list",
		module + "internal/histogram", module + "pool", module + "pool/h2",
		"github.com/elazarl/goproxy",
	},
}

// Signals, flags, the environment and what else is global are the program's:
// code outside cmd imports none of these packages and uses none of these names.
var (
	forbiddenPackages = []string{"os/signal", "log", "log/slog", "expvar", "flag"}
	forbiddenNames    = map[string][]string{
		"os":      {"Getenv", "LookupEnv", "Environ", "ExpandEnv"},
		"syscall": {"Getenv", "Environ"},
	}
)

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "cmd/") {
			continue
		}
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %s is not in the table: say what it may import", name)
			continue
		}
		seen[name] = true
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) { // other systems' files too
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range faultsOf(f, allowed) {
				t.Errorf("%s/%s %s", name, file, fault)
			}
		}
	}
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("there is no package %s", name)
		}
	}
}

// TestNoProgramLinksWhatTestsShare looks at all that a program of this module is
// built from.
func TestNoProgramLinksWhatTestsShare(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "list", "-deps", "./cmd/carpool")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, module+"proxy") {
		t.Fatal("the list has not even the proxy")
	}
	for _, p := range []string{"testing", module + "internal/testkit", module + "internal/testkit/nameserver", module + "cmd/carpool/internal/carpooltest", module + "proxy/http1/http1test"} {
		if slices.Contains(linked, p) {
			t.Errorf("package %s is part of a program", p)
		}
	}
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir                   string
	GoFiles, CgoFiles, IgnoredGoFiles []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// faultsOf tells what a file outside cmd does that it must not.
func faultsOf(f *ast.File, allowed []string) []string {
	var faults []string
	names := map[string]string{} // of imported packages, in this file
	for _, spec := range f.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		switch {
		case slices.Contains(forbiddenPackages, imported):
			faults = append(faults, "imports "+imported)
		case !isStd(imported) && !slices.ContainsFunc(allowed, func(a string) bool {
			return a == imported || strings.HasSuffix(a, "/") && strings.HasPrefix(imported, a)
		}):
			faults = append(faults, "imports "+imported)
		}
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = imported
		if name == "." {
			faults = append(faults, "imports "+imported+" without a name")
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(forbiddenNames[names[x.Name]], s.Sel.Name) {
				faults = append(faults, "uses "+x.Name+"."+s.Sel.Name)
			}
		}
		return true
	})
	return faults
}

// isStd reports whether an import path is the standard library's: the first
// element of others has a dot.
func isStd(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// TestImportRulesAreApplied holds the check itself to what it is for.
func TestImportRulesAreApplied(t *testing.T) {
	cases := map[string]struct {
		source string
		want   []string
	}{
		"what it may":     {`import ("os"; "golang.org/x/sys/unix"); var _ = os.Open`, nil},
		"logger":          {`import "go.uber.org/zap"`, []string{"imports go.uber.org/zap"}},
		"metrics":         {`import "github.com/prometheus/client_golang/prometheus"`, []string{"imports github.com/prometheus/client_golang/prometheus"}},
		"upwards":         {`import "` + module + `proxy"`, []string{"imports " + module + "proxy"}},
		"environment":     {`import "os"; var _ = os.Getenv("A")`, []string{"uses os.Getenv"}},
		"under its alias": {`import system "os"; var _, _ = system.LookupEnv("A")`, []string{"uses system.LookupEnv"}},
		"all of it":       {`import "os"; var f = os.Environ`, []string{"uses os.Environ"}},
		"signals":         {`import "os/signal"; var _ = signal.Notify`, []string{"imports os/signal"}},
		"nameless":        {`import . "os"; var _ = Getenv("A")`, []string{"imports os without a name"}},
		"a method":        {`type s struct{}; func (s) Getenv() {}; func f(os s) { os.Getenv() }`, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x; "+c.source, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := faultsOf(f, mayImport["internal/sock"]); !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
