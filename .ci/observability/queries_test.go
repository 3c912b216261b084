package observability

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	promql "github.com/prometheus/prometheus/promql/parser"
)

var (
	rulesFile     = filepath.Join(root, "charts", "carpool", "files", "rules.yaml")
	dashboardFile = filepath.Join(root, "charts", "carpool", "files", "dashboards", "carpool.json")
	readme        = filepath.Join(root, "README.md")

	parsePromQL = promql.NewParser(promql.Options{}).ParseExpr
)

// targetLabels come with scraping, not from carpool.
var targetLabels = []string{"namespace", "pod", "job", "instance"}

// query is a PromQL expression and where it stands.
type query struct{ place, expr string }

// queries returns every expression of the dashboard, the rules and the README.
func queries(t *testing.T) []query {
	t.Helper()
	return slices.Concat(ruleQueries(t), dashboardQueries(t), readmeQueries(t))
}

func ruleQueries(t *testing.T) (all []query) {
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, promql.NewParser(promql.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			all = append(all, query{"rule " + r.Alert, r.Expr})
		}
	}
	return all
}

// dashboard is what the tests need of the dashboard's JSON.
type dashboard struct {
	Panels []struct {
		ID          int
		Type, Title string
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ Expr, LegendFormat, RefID string }
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// variables are Grafana's, with what they could stand for.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h",
	`"$namespace"`, `".*"`, `"$pod"`, `".*"`, `"$origin"`, `".*"`)

func dashboardQueries(t *testing.T) (all []query) {
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, query{"panel " + p.Title, variables.Replace(target.Expr)})
		}
	}
	labelValues := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Fatalf("variable %s: %s", v.Name, v.Definition)
		}
		all = append(all, query{"variable " + v.Name, "group by (" + m[2] + ") (" + variables.Replace(m[1]) + ")"})
	}
	return all
}

// readmeQueries are the README's code blocks that name metrics.
func readmeQueries(t *testing.T) (all []query) {
	for i, block := range strings.Split(read(t, readme), "\n```") {
		if _, code, _ := strings.Cut(block, "\n"); i%2 == 1 && strings.Contains(code, "carpool_") {
			all = append(all, query{"README", code})
		}
	}
	if len(all) == 0 {
		t.Fatal("the README has no query")
	}
	return all
}

func TestQueriesAskForWhatCarpoolExports(t *testing.T) {
	check := checker{exported(t), closeReasons(t)}
	for _, q := range queries(t) {
		expr, err := parsePromQL(q.expr)
		if err != nil {
			t.Errorf("%s: %v\n%s", q.place, err, q.expr)
			continue
		}
		for _, fault := range check.faults(expr) {
			t.Errorf("%s: %s\n%s", q.place, fault, q.expr)
		}
	}
}

// TestQueriesAreReallyChecked holds the check itself to what it is for.
func TestQueriesAreReallyChecked(t *testing.T) {
	check := checker{exported(t), closeReasons(t)}
	for expr, want := range map[string]string{
		`carpool_tunnels`: "",
		`histogram_quantile(0.9, sum by (le) (rate(carpool_dial_seconds_bucket[5m])))`: "",
		`carpool_tunels`:                                      "no metric carpool_tunels",
		`carpool_dial_seconds`:                                "no metric carpool_dial_seconds",
		`carpool_tunnels_bucket`:                              "no metric carpool_tunnels_bucket",
		`carpool_tunnels{origin="x"}`:                         "carpool_tunnels has no label origin",
		`sum by (origin) (carpool_tunnels)`:                   "nothing here has a label origin",
		`carpool_connections_closed_total{reason="bored"}`:    "no reason is bored",
		`carpool_error_answers_total{error=~"dns_error|odd"}`: "no error is odd",
		`carpool_request_phase_seconds_sum{phase="lunch"}`:    "no phase is lunch",
		`carpool_policy_refusals_total{rule="whim"}`:          "no rule is whim",
		`rate(carpool_tunnels[5m])`:                           "carpool_tunnels is a gauge",
		`carpool_tunnels / on (origin) carpool_clients`:       "nothing here has a label origin",
	} {
		parsed, err := parsePromQL(expr)
		if err != nil {
			t.Fatal(err)
		}
		got := check.faults(parsed)
		if want == "" && len(got) > 0 || want != "" && !slices.Contains(got, want) {
			t.Errorf("%s: found %q, want %q", expr, got, want)
		}
	}
}

// checker finds what is wrong with queries.
type checker struct {
	metrics map[string]family
	reasons map[string]bool
}

// faults checks an expression and all in it.
func (c checker) faults(expr promql.Expr) (faults []string) {
	promql.Inspect(expr, func(node promql.Node, path []promql.Node) error {
		switch n := node.(type) {
		case *promql.VectorSelector:
			faults = append(faults, c.selector(n, path)...)
		case *promql.AggregateExpr:
			faults = append(faults, c.missing(n.Expr, n.Grouping)...)
		case *promql.BinaryExpr:
			if m := n.VectorMatching; m != nil {
				faults = append(faults, c.missing(n, append(m.MatchingLabels, m.Include...))...)
			}
		}
		return nil
	})
	return faults
}

func (c checker) selector(n *promql.VectorSelector, path []promql.Node) (faults []string) {
	f, ok := c.family(n.Name)
	if !ok {
		return []string{"no metric " + n.Name}
	}
	for _, p := range path {
		if call, ok := p.(*promql.Call); ok && slices.Contains([]string{"rate", "increase"}, call.Func.Name) &&
			f.GetType().String() == "GAUGE" {
			faults = append(faults, n.Name+" is a gauge")
		}
	}
	for _, m := range n.LabelMatchers {
		switch {
		case m.Name == "__name__" || slices.Contains(targetLabels, m.Name):
			continue
		case !f.labels[m.Name]:
			faults = append(faults, n.Name+" has no label "+m.Name)
			continue
		}
		for _, value := range append(m.SetMatches(), m.Value) {
			if known := c.values(f, m.Name); known != nil && !strings.Contains(value, "|") && !known[value] {
				faults = append(faults, "no "+m.Name+" is "+value)
			}
		}
	}
	return faults
}

// values returns the values that a label can have, nil if they are not known
// beforehand.
func (c checker) values(f family, label string) map[string]bool {
	switch label {
	case "reason":
		return c.reasons
	case "error", "code_class", "phase", "rule", "action":
		known := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label {
					known[l.GetValue()] = true
				}
			}
		}
		return known
	}
	return nil
}

// family finds a metric by the name of one of its series.
func (c checker) family(series string) (family, bool) {
	f, ok := c.metrics[series]
	if ok {
		return f, f.GetType().String() != "HISTOGRAM"
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if name, ok := strings.CutSuffix(series, suffix); ok {
			f, ok := c.metrics[name]
			return f, ok && f.GetType().String() == "HISTOGRAM"
		}
	}
	return f, false
}

// missing names the labels that no metric in an expression has.
func (c checker) missing(expr promql.Expr, labels []string) (faults []string) {
	have := map[string]bool{}
	promql.Inspect(expr, func(node promql.Node, _ []promql.Node) error {
		if s, ok := node.(*promql.VectorSelector); ok {
			f, _ := c.family(s.Name)
			for l := range f.labels {
				have[l] = true
			}
		}
		return nil
	})
	for _, l := range labels {
		if !have[l] && !slices.Contains(targetLabels, l) {
			faults = append(faults, "nothing here has a label "+l)
		}
	}
	return faults
}

// closeReasons reads package pool's: carpool exports one when it first occurs.
func closeReasons(t *testing.T) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "pool", "lease.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Reason" {
				value, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				reasons[value] = true
			}
		}
		return true
	})
	return reasons
}

// TestTextNamesMetricsThatThereAre checks prose: the README and the runbooks.
func TestTextNamesMetricsThatThereAre(t *testing.T) {
	check := checker{metrics: exported(t)}
	for _, file := range []string{readme, rulesFile, dashboardFile} {
		for _, name := range regexp.MustCompile(`\bcarpool_\w+`).FindAllString(read(t, file), -1) {
			_, whole := check.metrics[name] // as prose calls a histogram; queries would not find it
			if _, ok := check.family(name); !ok && !(whole && file == readme) {
				t.Errorf("%s: no metric %s", file, name)
			}
		}
	}
}

// TestTextNamesSettingsThatThereAre checks what runbooks tell people to set.
func TestTextNamesSettingsThatThereAre(t *testing.T) {
	settings := read(t, readme)
	for _, file := range []string{rulesFile, dashboardFile} {
		for _, name := range regexp.MustCompile(`\bCARPOOL_\w+`).FindAllString(read(t, file), -1) {
			if !strings.Contains(settings, "| `"+name+"` |") {
				t.Errorf("%s: no setting %s", file, name)
			}
		}
	}
}

func TestDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	ids := map[int]bool{}
	for i, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %d %q: an id of its own and a title are needed", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		a := p.GridPos
		if a.X < 0 || a.W < 1 || a.H < 1 || a.X+a.W > 24 {
			t.Errorf("panel %q lies outside: %+v", p.Title, a)
		}
		for _, q := range d.Panels[:i] {
			if b := q.GridPos; a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", p.Title, q.Title)
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] {
				t.Errorf("panel %q has two queries %s", p.Title, target.RefID)
			}
			refs[target.RefID] = true
		}
	}
}
