package rules_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	declared = regexp.MustCompile(`envconfig:"([A-Z0-9_]+)"`)
	setting  = regexp.MustCompile(`\b[A-Z0-9]+(_[A-Z0-9]+)+\b`)
)

// What a client is told names settings as users set them, and only those there
// are.
func TestTextsNameSettingsAsUsersSetThem(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile(root + "/cmd/carpool/internal/config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"HTTP_PROXY": true, "NO_PROXY": true} // the app's own
	for _, m := range declared.FindAllStringSubmatch(string(table), -1) {
		known["CARPOOL_"+m[1]] = true
	}
	files, err := filepath.Glob(root + "/proxy/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			text, _ := strconv.Unquote(l.Value)
			for _, s := range setting.FindAllString(text, -1) {
				found++
				if !known[s] {
					t.Errorf("%s speaks of %s, which is no setting: %q", filepath.Base(name), s, text)
				}
			}
			return true
		})
	}
	if found < 10 {
		t.Errorf("found only %d names of settings", found)
	}
}
