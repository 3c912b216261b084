package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/e2e/internal/record"
)

// scaledOnce is a result in which a call a second goes to the old pod,
// and after a minute to one of the two new ones in turn with it; the other new
// one has none. The old pod ends with the last mark, and has a call 3 s later.
func scaledOnce() *result {
	began := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	calls := record.NewLog(began)
	for s := range 200 {
		pod := "old"
		if s >= 60 && s%2 == 0 {
			pod = "new"
		}
		calls.Note("GET", at(s), time.Millisecond, pod, "")
	}
	calls.Note("POST", at(203), time.Second, "old", "")
	calls.Note("POST", at(204), time.Second, "", "502 no | answer")
	r := &result{
		Case: "scale-1-1", Way: "direct",
		Marks: map[string]time.Time{"begin": at(0), "grow": at(30), "grown": at(50), "shrink": at(200), "end": at(220)},
		Pods: []life{
			{Name: "old", Ready: at(0), Deleted: at(200), Ended: at(210)},
			{Name: "new", Ready: at(40)},
			{Name: "unknown", Ready: at(50)},
		},
	}
	calls.Show(func(s *record.Seen) { r.Loads = []loadResult{{URL: clusterIP, Seen: record.Group{*s}}} })
	return r
}

func TestTheReportHasWhatWasMeasured(t *testing.T) {
	r := scaledOnce()
	want := []string{"202", "0 of 200, 1 of 2", "100 %", "150.0 s, 150.0 s", "33.3 %", "1.50", "3.0 s", "10.0 s", "0 %"}
	if got := scaleLine(r, &r.Loads[0]); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	folder := t.TempDir()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "scale-1-1.direct.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := report(folder); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(folder, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	if line := "| scale-1-1 | http://upstream/ | direct | " + strings.Join(want, " | ") + " |\n"; !strings.Contains(string(got), line) {
		t.Errorf("%s is not in\n%s", line, got)
	}
}

func TestTheReportIsInOrder(t *testing.T) {
	want := []string{"a/roll-dies.direct.json", "a/scale-50-1.direct.json", "a/scale-50-1.before.json", "a/scale-300-1.direct.json"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, inOrder)
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
