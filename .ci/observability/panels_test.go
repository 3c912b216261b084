package observability

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// TestEveryQueryFindsSomething asks with two pods that export everything and
// see it grow: joins must hold, and no panel may stay empty.
func TestEveryQueryFindsSomething(t *testing.T) {
	store, engine := load(t, growing(exported(t))), newEngine(t)
	for _, q := range slices.Concat(dashboardQueries(t), readmeQueries(t)) {
		query, err := engine.NewInstantQuery(t.Context(), store, nil, q.expr, time.Unix(60*60, 0))
		if err != nil {
			t.Errorf("%s: %v", q.place, err)
			continue
		}
		result := query.Exec(t.Context())
		vector, err := result.Vector()
		if err != nil || len(vector) == 0 {
			t.Errorf("%s: found nothing, %v\n%s", q.place, err, q.expr)
		}
		for _, sample := range vector {
			if math.IsNaN(sample.F) || math.IsInf(sample.F, 0) {
				t.Errorf("%s: found %v\n%s", q.place, sample, q.expr)
			}
		}
		query.Close()
	}
}

// growing are an hour of series with the names and labels of what was
// exported.
func growing(metrics map[string]family) (series []string) {
	for name, f := range metrics {
		for _, m := range f.GetMetric() {
			for _, pod := range []string{"web-1", "web-2"} {
				labels := fmt.Sprintf(`namespace="shop", pod=%q, job="shop/carpool", instance=%q`, pod, pod+":9128")
				for _, l := range m.GetLabel() {
					labels += fmt.Sprintf(", %s=%q", l.GetName(), l.GetValue())
				}
				series = append(series, seriesOf(name, labels, f.GetType(), m)...)
			}
		}
	}
	for _, pod := range []string{"web-1", "web-2"} { // which cannot be provoked at will
		series = append(series, fmt.Sprintf(`carpool_connections_closed_total{namespace="shop", pod=%q, job="shop/carpool", `+
			`instance=%q, origin="http://a:80", reason="closed_on_reuse"} 0+1x60`, pod, pod+":9128"))
	}
	return series
}

func seriesOf(name, labels string, kind dto.MetricType, m *dto.Metric) []string {
	switch kind {
	case dto.MetricType_HISTOGRAM:
		series := []string{fmt.Sprintf("%s_sum{%s} 0+1x60", name, labels), fmt.Sprintf("%s_count{%s} 0+100x60", name, labels)}
		for i, b := range m.GetHistogram().GetBucket() {
			series = append(series, fmt.Sprintf("%s_bucket{%s, le=%q} 0+%dx60", name, labels, fmt.Sprint(b.GetUpperBound()), i+1))
		}
		return append(series, fmt.Sprintf(`%s_bucket{%s, le="+Inf"} 0+100x60`, name, labels))
	case dto.MetricType_SUMMARY: // Go's own, which nothing asks for
		return nil
	case dto.MetricType_GAUGE:
		return []string{fmt.Sprintf("%s{%s} 5x60", name, labels)}
	}
	return []string{fmt.Sprintf("%s{%s} 0+60x60", name, labels)}
}
