package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A table is a part of the report: a line for each load of the cases whose
// names begin in a certain way.
type table struct {
	cases string
	title string
	head  []string
	line  func(*result, *loadResult) []string
}

var tables = []table{
	{"scale", "Scaled from 2 to 6 to 3 pods",
		[]string{"calls", "failed GET, POST", "connections opened a call", "first request of a new pod after it is ready: median, last", "with 6 pods: starved for 30 s", "with 6 pods: worst share in 30 s ÷ fair", "last request to a pod that ends", "such a pod ends after", "machine busy"}, scaleLine},
	{"scale", "Shares of the pods in 10 s windows, in percent",
		[]string{"2 pods", "6 pods, from the change on", "3 pods, from the change on"}, windowsLine},
	{"roll", "Two rolling updates of three pods",
		[]string{"calls", "failed GET", "failed POST", "slowest", "what failed", "last request to a pod that ends", "such a pod ends after", "of them killed", "machine busy"}, rollLine},
	{"outage", "Half a minute without a name server",
		[]string{"calls meanwhile", "failed meanwhile", "failed in the 30 s after", "slowest before, meanwhile, after", "what failed"}, outageLine},
	{"external", "Questions for an external name (TTL 30 s, ndots 5), in two minutes",
		[]string{"calls", "questions", "questions a call", "by name"}, externalLine},
}

// report writes tables of all results in a folder to report.md in it.
func report(folder string) error {
	results, err := readResults(folder)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, tab := range tables {
		tab.write(&out, results)
	}
	return os.WriteFile(filepath.Join(folder, "report.md"), out.Bytes(), 0o600)
}

func readResults(folder string) ([]*result, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, inOrder)
	var results []*result
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r := new(result)
		if err := json.Unmarshal(text, r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// inOrder compares the names of files: those of a case stand together, direct
// calls first, and scale-50 before scale-300.
func inOrder(a, b string) int {
	key := func(file string) string {
		name, way, _ := strings.Cut(filepath.Base(file), ".")
		kind, rest, _ := strings.Cut(name, "-")
		if way == "direct.json" {
			way = ""
		}
		return fmt.Sprintf("%s %12s %s", kind, rest, way)
	}
	return strings.Compare(key(a), key(b))
}

func (tab table) write(out *bytes.Buffer, results []*result) {
	var lines []string
	for _, r := range results {
		if !strings.HasPrefix(r.Case, tab.cases) {
			continue
		}
		for i := range r.Loads {
			l := &r.Loads[i]
			cells := append([]string{r.Case, l.URL, r.Way}, tab.line(r, l)...)
			lines = append(lines, "| "+strings.Join(cells, " | ")+" |\n")
		}
	}
	if len(lines) == 0 {
		return
	}
	head := append([]string{"case", "upstream", "way"}, tab.head...)
	fmt.Fprintf(out, "## %s\n\n| %s |\n|%s\n%s\n", tab.title, strings.Join(head, " | "),
		strings.Repeat("---|", len(head)), strings.Join(lines, ""))
}

func scaleLine(r *result, l *loadResult) []string {
	all := l.Seen.Window(r.Marks["begin"], r.Marks["end"])
	var firsts []time.Duration
	var six []string // the pods after the change
	for _, p := range r.Pods {
		if p.Ready.After(r.Marks["shrink"]) {
			continue
		}
		six = append(six, p.Name)
		if p.Ready.After(r.Marks["grow"]) {
			firsts = append(firsts, first(r, l, p))
		}
	}
	slices.Sort(firsts)
	starved, worst := starvation(r, l, six)
	last, end, _ := leaving(r, l)
	gets, posts := failures(l)
	return []string{
		fmt.Sprint(all.Calls), gets + ", " + posts, openedPerCall(l, all.Calls),
		seconds(firsts[len(firsts)/2]) + ", " + seconds(firsts[len(firsts)-1]),
		fmt.Sprintf("%.1f %%", 100*starved), fmt.Sprintf("%.2f", worst), seconds(last), seconds(end), percent(r.Busy),
	}
}

// first returns how long a pod was ready before it had a request: all the time
// until the upstream shrank, if it had none.
func first(r *result, l *loadResult, p life) time.Duration {
	at := l.Seen.First(p.Name)
	if at.IsZero() || at.After(r.Marks["shrink"]) {
		at = r.Marks["shrink"]
	}
	return max(at.Sub(p.Ready), 0)
}

// starvation returns for the windows of 30 s that begin 15 s after all pods
// are there, or later: in which part of them, of all pods, the pod had no
// request; and the mean of the largest share, as a multiple of a fair one.
func starvation(r *result, l *loadResult, pods []string) (starved, worst float64) {
	const width = 30 * time.Second
	windows := 0.0
	for from := r.Marks["grown"].Add(15 * time.Second); !from.Add(width).After(r.Marks["shrink"]); from = from.Add(5 * time.Second) {
		w := l.Seen.Window(from, from.Add(width))
		windows++
		top := 0.0
		for _, p := range pods {
			if w.Answers[p] == 0 {
				starved++
			}
			top = max(top, w.Share(p))
		}
		worst += top * float64(len(pods))
	}
	return starved / windows / float64(len(pods)), worst / windows
}

// leaving returns, of the pods that were to end, the longest time in which one
// still had requests, the longest in which it still ran, and how many were
// killed.
func leaving(r *result, l *loadResult) (last, end time.Duration, killed int) {
	for _, p := range r.Pods {
		if p.Deleted.IsZero() {
			continue
		}
		if at := l.Seen.Last(p.Name); !at.IsZero() {
			last = max(last, at.Sub(p.Deleted))
		}
		end = max(end, p.Ended.Sub(p.Deleted))
		if p.ExitCode != 0 {
			killed++
		}
	}
	return last, end, killed
}

// windowsLine has the shares of pods in order of their age: those that go away
// are often the younger ones.
func windowsLine(r *result, l *loadResult) []string {
	pods := slices.Clone(r.Pods)
	slices.SortFunc(pods, func(a, b life) int { return a.Ready.Compare(b.Ready) })
	shares := func(from, to time.Time) string {
		var windows []string
		for ; from.Before(to.Add(-9 * time.Second)); from = from.Add(10 * time.Second) {
			w := l.Seen.Window(from, from.Add(10*time.Second))
			var each []string
			for _, p := range pods {
				if p.Ready.Before(from.Add(10*time.Second)) && (p.Ended.IsZero() || p.Ended.After(from)) {
					each = append(each, fmt.Sprintf("%.0f", 100*w.Share(p.Name)))
				}
			}
			windows = append(windows, strings.Join(each, " "))
		}
		return strings.Join(windows, "<br>")
	}
	return []string{
		shares(r.Marks["begin"], r.Marks["grow"]),
		shares(r.Marks["grow"], r.Marks["shrink"]),
		shares(r.Marks["shrink"], r.Marks["end"]),
	}
}

func rollLine(r *result, l *loadResult) []string {
	all := l.Seen.Window(r.Marks["begin"], r.Marks["end"])
	last, end, killed := leaving(r, l)
	gets, posts := failures(l)
	return []string{fmt.Sprint(all.Calls), gets, posts, seconds(all.Slowest), what(l), seconds(last), seconds(end), fmt.Sprint(killed), percent(r.Busy)}
}

func outageLine(r *result, l *loadResult) []string {
	before := l.Seen.Window(r.Marks["begin"], r.Marks["away"])
	meanwhile := l.Seen.Window(r.Marks["away"], r.Marks["back"])
	after := l.Seen.Window(r.Marks["back"], r.Marks["end"])
	return []string{
		fmt.Sprint(meanwhile.Calls), fmt.Sprint(meanwhile.Failed), fmt.Sprint(after.Failed),
		fmt.Sprintf("%s, %s, %s", seconds(before.Slowest), seconds(meanwhile.Slowest), seconds(after.Slowest)), what(l),
	}
}

func externalLine(r *result, l *loadResult) []string {
	calls := l.Seen.Window(r.Marks["begin"], r.Marks["end"]).Calls
	all := 0
	var each []string
	for _, question := range slices.Sorted(maps.Keys(l.Questions)) {
		all += l.Questions[question]
		each = append(each, fmt.Sprintf("%s %d", question, l.Questions[question]))
	}
	return []string{fmt.Sprint(calls), fmt.Sprint(all), fmt.Sprintf("%.3f", float64(all)/float64(max(calls, 1))), strings.Join(each, "<br>")}
}

// failures returns how many calls of each method failed, of how many.
func failures(l *loadResult) (gets, posts string) {
	of := func(method string) string {
		calls, failed := l.Seen.Counts(method)
		return fmt.Sprintf("%d of %d", failed, calls)
	}
	return of("GET"), of("POST")
}

// what returns the kinds of failures.
func what(l *loadResult) string {
	var each []string
	for _, e := range l.Seen.Errors() {
		each = append(each, fmt.Sprintf("%d × %s", e.Times, strings.ReplaceAll(e.Text, "|", "/")))
	}
	return strings.Join(each, "<br>")
}

// openedPerCall says how many connections carpool opened for a call. A direct
// call always opens one.
func openedPerCall(l *loadResult, calls int) string {
	if l.Opened == 0 {
		return "100 %"
	}
	return fmt.Sprintf("%.2f %%", 100*l.Opened/float64(max(calls, 1)))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func percent(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }
