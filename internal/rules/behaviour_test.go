package rules_test

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the names of the tests into docs/BEHAVIOUR.md")

const (
	root      = "../.."
	behaviour = root + "/docs/BEHAVIOUR.md"
)

// A row's id stands at the head of a test's name, or of the name of a case.
var (
	rowID   = regexp.MustCompile(`^\| ([FRPXCSO][0-9]+[a-z]?) \|`)
	testID  = regexp.MustCompile(`^Test([FRPXCSO][0-9]+[a-z]?)[A-Z]`)
	literal = regexp.MustCompile(`^([FRPXCSO][0-9]+[a-z]?) `)
	notMet  = regexp.MustCompile(`\(([FRPXCSO][0-9]+[a-z]?)\)`)
	// otherwise is a row that something other than a Go test holds.
	otherwise = regexp.MustCompile(`\| by [^|]*\|$`)
	lastCell  = regexp.MustCompile(`\| [^|]*\|$`)
)

// TestEachRowOfTheBehaviourHasATest holds docs/BEHAVIOUR.md and the tests to one
// another: no row without a test, unless proxy/doc.go names it under "Not met",
// and no id in a test's name that the document does not explain.
func TestEachRowOfTheBehaviourHasATest(t *testing.T) {
	tests := testsByRow(t)
	text, err := os.ReadFile(behaviour)
	if err != nil {
		t.Fatal(err)
	}
	unmet := rowsNotMet(t)
	lines := strings.Split(string(text), "\n")
	rows := map[string]bool{}
	for i, line := range lines {
		m := rowID.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		id := m[1]
		if rows[id] {
			t.Errorf("row %s stands twice", id)
		}
		rows[id] = true
		names := slices.Sorted(maps.Keys(tests[id]))
		if len(names) == 0 && otherwise.MatchString(line) {
			continue
		}
		if len(names) == 0 && !unmet[id] {
			t.Errorf("row %s has no test, and proxy/doc.go does not say that it is not met", id)
		}
		lines[i] = lastCell.ReplaceAllLiteralString(line, "| "+strings.Join(names, ", ")+" |")
	}
	for id, names := range tests {
		if !rows[id] {
			t.Errorf("%s is no row of docs/BEHAVIOUR.md, but %v has it in a name", id, slices.Sorted(maps.Keys(names)))
		}
	}
	want := strings.Join(lines, "\n")
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatal("the tests that docs/BEHAVIOUR.md names are not those there are: go test ./internal/rules -update")
	}
	if err := os.WriteFile(behaviour, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// testsByRow returns the names of the test functions for each id, from the
// packages of this module and of those below .ci.
func testsByRow(t *testing.T) map[string]map[string]bool {
	t.Helper()
	files := map[string][]*ast.File{} // by folder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		files[filepath.Dir(path)] = append(files[filepath.Dir(path)], file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]bool{}
	for _, folder := range files {
		tables := tablesOf(folder)
		for _, file := range folder {
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Test") {
					for id := range idsOf(f, tables) {
						if tests[id] == nil {
							tests[id] = map[string]bool{}
						}
						tests[id]["`"+f.Name.Name+"`"] = true
					}
				}
			}
		}
	}
	return tests
}

// tablesOf returns the ids in each of a package's variables and helpers, which
// are those of every test that uses them.
func tablesOf(folder []*ast.File) map[string]map[string]bool {
	tables := map[string]map[string]bool{}
	for _, file := range folder {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							tables[name.Name] = idsIn(v)
						}
					}
				}
			case *ast.FuncDecl:
				if d.Recv == nil && !strings.HasPrefix(d.Name.Name, "Test") && !strings.HasPrefix(d.Name.Name, "Fuzz") {
					tables[d.Name.Name] = idsIn(d)
				}
			}
		}
	}
	return tables
}

// idsOf returns the ids that stand at the head of a test's name or of its
// comment, or of a string in it or in a table that it uses.
func idsOf(f *ast.FuncDecl, tables map[string]map[string]bool) map[string]bool {
	ids := idsIn(f)
	if m := testID.FindStringSubmatch(f.Name.Name); m != nil {
		ids[m[1]] = true
	}
	if m := literal.FindStringSubmatch(f.Doc.Text()); m != nil {
		ids[m[1]] = true
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if x, ok := n.(*ast.Ident); ok {
			maps.Copy(ids, tables[x.Name])
		}
		return true
	})
	return ids
}

// idsIn returns the ids at the head of the strings below n.
func idsIn(n ast.Node) map[string]bool {
	ids := map[string]bool{}
	ast.Inspect(n, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, err := strconv.Unquote(l.Value)
			if m := literal.FindStringSubmatch(s); err == nil && m != nil {
				ids[m[1]] = true
			}
		}
		return true
	})
	return ids
}

// rowsNotMet returns the ids that proxy/doc.go names, in brackets, below its
// heading "Not met".
func rowsNotMet(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile(root + "/proxy/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "# Not met")
	if !ok {
		t.Fatal(`proxy/doc.go has no section "Not met"`)
	}
	ids := map[string]bool{}
	for _, m := range notMet.FindAllStringSubmatch(section, -1) {
		ids[m[1]] = true
	}
	return ids
}
