package rules_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	settingRow = regexp.MustCompile("(?m)^\\| `CARPOOL_([A-Z0-9_]+)` \\|")
	upperWord  = regexp.MustCompile(`[A-Z0-9]+(?:_[A-Z0-9]+)*`)
)

// TestErrorsNameSettingsAsUsersWriteThem looks at each string in the data plane:
// a setting that it names exists, in the README's table, and has its prefix, so
// that who reads the error can paste it.
func TestErrorsNameSettingsAsUsersWriteThem(t *testing.T) {
	readme, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]bool{}
	for _, m := range settingRow.FindAllStringSubmatch(string(readme), -1) {
		settings[m[1]] = true
	}
	if len(settings) < 20 {
		t.Fatalf("found only %d settings in the README", len(settings))
	}
	named := 0
	eachString(t, func(file, s string) {
		for _, word := range upperWord.FindAllString(s, -1) {
			name, prefixed := strings.CutPrefix(word, "CARPOOL_")
			switch {
			case prefixed && !settings[name]:
				t.Errorf("%s: there is no setting %s", file, word)
			case prefixed:
				named++
			case strings.Contains(word, "_") && settings[word]:
				t.Errorf("%s: %s is to be named CARPOOL_%s", file, word, word)
			}
		}
	})
	if named == 0 {
		t.Error("no error names a setting")
	}
}

// eachString calls see with the strings in the code of proxy and pool.
func eachString(t *testing.T, see func(file, s string)) {
	t.Helper()
	for _, folder := range []string{"proxy", "pool"} {
		err := filepath.WalkDir(root+"/"+folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil {
						see(path, s)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
