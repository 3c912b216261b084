package inject_test

import (
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// rewritten names the files in testdata that uninject does not give back to the
// byte: what inject cannot change by adding lines it writes anew, in its style.
var rewritten = []string{"aliases.yaml", "flow.yaml"}

func TestADiffShowsOnlyWhatWasInjected(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			in := readFile(t, file)
			o := inject.Defaults()
			o.Preload = true
			out, _, err := inject.Inject(in, o)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(out, []byte("CARPOOL")) && !bytes.Contains(out, []byte("HTTP_PROXY")) {
				t.Errorf("nothing was injected:\n%s", out)
			}
			if again, _, err := inject.Inject(out, o); err != nil || string(again) != string(out) {
				t.Errorf("injecting twice is not injecting once (%v):\n%s", err, again)
			}
			back, _, err := inject.Uninject(out, inject.Defaults())
			if err != nil {
				t.Fatal(err)
			}
			if diff := difference(any(meaning(t, back)), any(meaning(t, in))); diff != "" {
				t.Errorf("uninject leaves something else: %s\n%s", diff, back)
			}
			if slices.Contains(rewritten, filepath.Base(file)) {
				for _, comment := range commentsOf(in) {
					if !bytes.Contains(out, []byte(comment)) {
						t.Errorf("the comment %q is lost:\n%s", comment, out)
					}
				}
				return
			}
			if string(back) != string(in) {
				t.Errorf("uninject does not give back the bytes:\n%s", back)
			}
			if line := missing(out, in); line != "" && filepath.Ext(file) == ".yaml" {
				t.Errorf("the line %q is lost or out of order:\n%s", line, out)
			}
		})
	}
}

func commentsOf(text []byte) []string {
	var all []string
	for line := range strings.Lines(string(text)) {
		if _, comment, ok := strings.Cut(line, "# "); ok {
			all = append(all, strings.TrimSpace(comment))
		}
	}
	return all
}

// emptyValue is what can stand behind a key where there is nothing.
var emptyValue = regexp.MustCompile(`: *(\[\]|\{\}|~|null|""|'')?( #.*)?\n$`)

// missing returns the first line of want that does not come in its order in
// text. A line that was extended is its beginning, or its key if it was empty.
func missing(text, want []byte) string {
	rest := slices.Collect(strings.Lines(string(text)))
	for line := range strings.Lines(string(want)) {
		begin, _, _ := strings.Cut(line, " # small")
		begin = emptyValue.ReplaceAllString(begin, ":")
		i := slices.IndexFunc(rest, func(l string) bool { return strings.HasPrefix(l, begin) })
		if i < 0 {
			return line
		}
		rest = rest[i+1:]
	}
	return ""
}

func TestOtherDocumentsAreNotTouched(t *testing.T) {
	cases := map[string]string{
		"nothing":        "",
		"blank":          "\n\n",
		"comment":        "# only this",
		"no kind":        "a:   1\nb: [ 2 ]",
		"no object":      "jobs:\n  test:\n    container:   {image: a}\n",
		"a list":         "- 1\n-   2\n",
		"another kind":   "kind:   Service\napiVersion: v1\n",
		"another group":  "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {tasks:   []}\n",
		"twice the same": "a: 1\na: 2\n",
		"markers":        "---\n---   # nothing\n---\n...\n---\na: 1\n...\n# behind\n",
		"directive":      "%YAML 1.1\n---\na: 1\n",
		"no template":    "apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas:   3\n",
		"no containers":  "apiVersion: v1\nkind: Pod\nspec:\n  nodeName:   n\n",
		"JSON":           `{"kind" : "Service", "apiVersion":"v1" } {"kind": "Pod"}  ` + "\n\n",
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			for what, change := range map[string]func([]byte, inject.Options) ([]byte, []string, error){
				"inject": inject.Inject, "uninject": inject.Uninject,
			} {
				if out, notes, err := change([]byte(in), inject.Defaults()); err != nil || string(out) != in || name == "no object" && notes != nil {
					t.Errorf("%s: %q, %v, %v", what, out, notes, err)
				}
			}
		})
	}
}
