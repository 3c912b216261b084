package observability

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

// Series in these tests are written as for promtool: one sample a minute, a+bxn
// for a value that starts at a and grows by b, n times. %s stands for labels
// that every target has.
const target = `namespace="shop", pod="web-1", container="carpool", job="shop/carpool", instance="10.0.0.1:9128"`

// alertCase is a state of affairs, and what on-call should be told.
type alertCase struct {
	series []string
	at     int // minutes
	want   []string
}

var alertCases = map[string]alertCase{
	"all is well": {
		series: []string{
			`carpool_requests_total{%s, origin="a", code_class="2xx"} 0+6000x60`,
			`carpool_own_answers_total{%s, origin="a"} 0+10x60`,
			`carpool_connections_opened_total{%s, origin="a"} 0+60x60`,
			`carpool_connections_reused_total{%s, origin="a"} 0+5940x60`,
			`carpool_connections_closed_total{%s, origin="a", reason="max_age"} 0+60x60`,
			`carpool_requests_waiting{%s, origin="a"} 12x60`,
			`carpool_requests_waiting_limit{%s} 1024x60`,
			`carpool_connections_in_use{%s, origin="a"} 10x60`,
			`carpool_connections_idle{%s, origin="a"} 300x60`,
			`carpool_connections_limit{%s} 320x60`,
			`carpool_client_connections{%s} 100x60`,
			`carpool_client_connections_limit{%s} 500x60`,
			`process_open_fds{%s} 500x60`,
			`process_max_fds{%s} 1024x60`,
			`carpool_panics_total{%s} 3x60`,
			`carpool_requests_shed_total{%s} 9x60`,
			`carpool_error_answers_total{%s, error="dns_error"} 0+1x60`,
			`carpool_error_answers_total{%s, error="connection_limit_reached"} 7x60`,
			`carpool_error_answers_total{%s, error="http_request_error"} 0+1x60`,
			`carpool_policy_refusals_total{%s, rule="allow_hosts", action="refused"} 0+1x60`,
			`carpool_bypass_connections{%s, port="80"} 0x60`,
			`carpool_pod_time_wait_sockets{%s} 28000x60`,
			`carpool_pod_tcp_sockets{%s} 400x60`,
			`carpool_pod_ephemeral_ports{%s} 28232x60`,
		},
		at: 60,
	},
	"an upstream is down": {
		series: []string{
			`carpool_requests_total{%s, origin="a", code_class="2xx"} 0+540x30`,
			`carpool_requests_total{%s, origin="a", code_class="5xx"} 0+60x30`,
			`carpool_own_answers_total{%s, origin="a"} 0+60x30`,
			`carpool_requests_total{%s, origin="b", code_class="2xx"} 0+600x30`,
			`carpool_own_answers_total{%s, origin="b"} 0+6x30`,
		},
		at:   15,
		want: []string{`CarpoolUpstreamFailing{namespace="shop", origin="a"} Requests to a fail before it answers`},
	},
	"an upstream is down, but for a moment": {
		series: []string{
			`carpool_requests_total{%s, origin="a", code_class="5xx"} 0+600x3 1800x30`,
			`carpool_own_answers_total{%s, origin="a"} 0+600x3 1800x30`,
		},
		at: 20,
	},
	"one failure of few requests": {
		series: []string{
			`carpool_requests_total{%s, origin="a", code_class="5xx"} 0+1x30`,
			`carpool_own_answers_total{%s, origin="a"} 0+1x30`,
		},
		at: 20,
	},
	"name servers are away, and old addresses serve": {
		series: []string{
			`carpool_dns_names_stale{%s} 0x4 3x30`,
			`carpool_dns_lookups_total{%s} 0+30x34`,
			`carpool_dns_lookups_failed_total{%s} 0+20x34`,
		},
		at: 25,
		want: []string{
			`CarpoolLookUpsFail{namespace="shop"} Look-ups fail in namespace shop`,
			`CarpoolNamesOnOldAddresses{namespace="shop"} Names in namespace shop live on old addresses`,
		},
	},
	"a look-up fails now and then": {
		series: []string{
			`carpool_dns_names_stale{%s} 0x40`,
			`carpool_dns_lookups_total{%s} 0+30x40`,
			`carpool_dns_lookups_failed_total{%s} 0+1x40`,
		},
		at: 35,
	},
	"the name server fails": {
		series: []string{
			`carpool_error_answers_total{%s, error="dns_timeout"} 0+60x30`,
			`carpool_error_answers_total{%s, error="dns_error"} 0+60x30`,
		},
		at:   15,
		want: []string{`CarpoolNameServerFailing{namespace="shop"} Host names cannot be resolved in namespace shop`},
	},
	"an upstream keeps no connection": {
		series: []string{
			`carpool_connections_opened_total{%s, origin="a"} 0+600x60`,
			`carpool_connections_reused_total{%s, origin="a"} 0x60`,
		},
		at:   40,
		want: []string{`CarpoolReuseCollapsed{namespace="shop", origin="a"} Connections to a are hardly reused`},
	},
	"an upstream that is hardly asked keeps no connection": {
		series: []string{
			`carpool_connections_opened_total{%s, origin="a"} 0+10x60`,
			`carpool_connections_reused_total{%s, origin="a"} 0x60`,
		},
		at: 40,
	},
	"an upstream hangs up as requests come": {
		series: []string{`carpool_connections_closed_total{%s, origin="a", reason="closed_on_reuse"} 0+6x60`},
		at:     40,
		want:   []string{`CarpoolClosedOnReuse{namespace="shop", origin="a"} a closes kept connections just as requests arrive`},
	},
	"requests queue up": {
		series: []string{
			`carpool_requests_waiting{%s, origin="a"} 700x10`,
			`carpool_requests_waiting{%s, origin="b"} 1x10`,
			`carpool_requests_waiting_limit{%s} 1024x10`,
		},
		at:   5,
		want: []string{`CarpoolWaitingNearLimit{` + target + `, origin="a"} Requests queue up for a`},
	},
	"the queue is turned off": {
		series: []string{
			`carpool_requests_waiting{%s, origin="a"} 7x10`,
			`carpool_requests_waiting_limit{%s} 0x10`,
		},
		at: 5,
	},
	"requests are turned away": {
		series: []string{`carpool_error_answers_total{%s, error="connection_limit_reached"} 0+5x20`},
		at:     10,
		want:   []string{`CarpoolRequestsRejected{namespace="shop", pod="web-1"} carpool in web-1 answers 503 for want of connections`},
	},
	"upstream connections run out": {
		series: []string{
			`carpool_connections_in_use{%s, origin="a"} 50x20`,
			`carpool_connections_in_use{%s, origin="b"} 10x20`,
			`carpool_connections_idle{%s, origin="a"} 10x20`,
			`carpool_connections_idle{%s, origin="b"} 20x20`,
			`carpool_connections_limit{%s} 100x20`,
		},
		at:   10,
		want: []string{`CarpoolConnectionsNearLimit{` + target + `} carpool in web-1 is short of upstream connections`},
	},
	"clients and descriptors run out": {
		series: []string{
			`carpool_client_connections{%s} 900x20`,
			`carpool_client_connections_limit{%s} 1000x20`,
			`process_open_fds{%s} 1800x20`,
			`process_max_fds{%s} 2000x20`,
			`process_open_fds{job="other", instance="10.0.0.9:80"} 1800x20`,
			`process_max_fds{job="other", instance="10.0.0.9:80"} 2000x20`,
		},
		at: 10,
		want: []string{
			`CarpoolClientsNearLimit{` + target + `} The app in web-1 has nearly all the connections to carpool that there may be`,
			`CarpoolDescriptorsNearLimit{` + target + `} carpool in web-1 is short of file descriptors`,
		},
	},
	"memory is short": {
		series: []string{`carpool_requests_shed_total{%s} 0x10 0+20x20`},
		at:     15,
		want:   []string{`CarpoolShedding{` + target + `} carpool in web-1 refuses requests for want of memory`},
	},
	"a fault": {
		series: []string{`carpool_panics_total{%s} 0x4 1x20`},
		at:     7,
		want:   []string{`CarpoolPanic{` + target + `} A fault in carpool in web-1`},
	},
	"the app speaks wrongly": {
		series: []string{`carpool_error_answers_total{%s, error="http_request_error"} 0+60x40`},
		at:     30,
		want:   []string{`CarpoolRefusesRequests{error="http_request_error", namespace="shop", pod="web-1"} carpool in web-1 refuses what the app asks for`},
	},
	"the webhook is not what it should be": {
		series: []string{
			`carpool_injector_ready{%s} 0x120`,
			`carpool_injector_pods_missed{%s, pod_namespace="desk"} 3x120`,
			`carpool_injector_reviews_total{%s, outcome="failed"} 0+6x120`,
			`carpool_injector_reviews_total{%s, outcome="refused"} 0+6x120`,
			`carpool_injector_certificate_expiry_timestamp_seconds{%s} 1000000x120`,
		},
		at: 90,
		want: []string{
			`CarpoolInjectorCertificateEnds{namespace="shop"} The certificate of the injectors in shop ends soon`,
			`CarpoolInjectorNotReady{namespace="shop"} No injector in shop can be called`,
			`CarpoolInjectorReviewsFail{namespace="shop"} Injectors in shop fail to review pods`,
			`CarpoolPodsMissed{pod_namespace="desk"} Pods in namespace desk should have carpool and do not`,
		},
	},
	"the webhook is well": {
		series: []string{
			`carpool_injector_ready{%s} 1x60`,
			`carpool_injector_reviews_total{%s, outcome="injected"} 0+6x60`,
			`carpool_injector_reviews_total{%s, outcome="refused"} 0+6x60`,
			`carpool_injector_certificate_expiry_timestamp_seconds{%s} 9000000x60`,
		},
		at: 60,
	},
	"a rule refuses, another would": {
		series: []string{
			`carpool_policy_refusals_total{%s, rule="deny_hosts", action="refused"} 0+60x40`,
			`carpool_policy_refusals_total{%s, rule="allow_hosts", action="refused"} 0x40`,
			`carpool_policy_refusals_total{%s, rule="allow_hosts", action="reported"} 0+60x40`,
			`carpool_error_answers_total{%s, error="http_request_denied"} 0+60x40`,
		},
		at:   30,
		want: []string{`CarpoolPolicyRefuses{namespace="shop", pod="web-1", rule="deny_hosts"} carpool in web-1 refuses destinations: deny_hosts`},
	},
	"a rule refused, for a moment": {
		series: []string{`carpool_policy_refusals_total{%s, rule="link_local", action="refused"} 0+60x3 180x40`},
		at:     30,
	},
	"the app goes past carpool, with all its ports": {
		series: []string{
			`carpool_bypass_connections{%s, port="80"} 2x60`,
			`carpool_bypass_connections{%s, port="8080"} 0x60`,
			`carpool_pod_time_wait_sockets{%s} 28000x60`,
			`carpool_pod_tcp_sockets{%s} 400x60`,
			`carpool_pod_ephemeral_ports{%s} 28232x60`,
		},
		at: 40,
		want: []string{
			`CarpoolBypassUsesUpPorts{` + target + `} The app in web-1 is running out of local ports`,
			`CarpoolBypassed{namespace="shop"} Apps in namespace shop go past carpool`,
		},
	},
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	for name, c := range alertCases {
		t.Run(name, func(t *testing.T) {
			store := load(t, c.series)
			got := firing(t, store, c.at)
			want := slices.Clone(c.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("firing:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// TestEveryAlertIsTested also holds alerts to what on-call needs of them.
func TestEveryAlertIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range alertCases {
		for _, w := range c.want {
			name, _, _ := strings.Cut(w, "{")
			tested[name] = true
		}
	}
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	names := map[string]bool{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			names[r.Alert] = true
			if !tested[r.Alert] {
				t.Errorf("no test lets %s fire", r.Alert)
			}
			for _, annotation := range []string{"summary", "description", "runbook"} {
				if r.Annotations[annotation] == "" {
					t.Errorf("%s has no %s", r.Alert, annotation)
				}
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s has severity %q", r.Alert, r.Labels["severity"])
			}
		}
	}
	for _, name := range regexp.MustCompile(`\bCarpool[A-Z]\w+`).FindAllString(read(t, rulesFile), -1) {
		if !names[name] {
			t.Errorf("a runbook refers to %s, which there is not", name)
		}
	}
}

// load stores series.
func load(t *testing.T, series []string) storage.Storage {
	t.Helper()
	var b strings.Builder
	b.WriteString("load 1m\n")
	for _, s := range series {
		b.WriteString("  " + strings.ReplaceAll(s, "%s", target) + "\n")
	}
	return promqltest.LoadedStorage(t, b.String())
}

func newEngine(t *testing.T) *promql.Engine {
	return promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
}

// firing evaluates the rules minute by minute and returns the alerts that fire
// at the end, with their labels and their summary.
func firing(t *testing.T, store storage.Storage, minutes int) []string {
	t.Helper()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(newEngine(t), store),
		Appendable: store, Queryable: store, Context: t.Context(), Logger: slog.New(slog.DiscardHandler),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Parser:     parser.NewParser(parser.Options{}),
	})
	groups, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, rulesFile)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var alerts []string
	for _, g := range groups {
		for m := range minutes + 1 {
			g.Eval(t.Context(), time.Unix(int64(m)*60, 0))
		}
		for _, r := range g.AlertingRules() {
			if r.LastError() != nil {
				t.Errorf("%s: %v", r.Name(), r.LastError())
			}
			for _, a := range r.ActiveAlerts() {
				if a.State == rules.StateFiring {
					alerts = append(alerts, describe(r.Name(), a))
				}
			}
		}
	}
	slices.Sort(alerts)
	return alerts
}

// describe writes an alert as the cases do: labels by name, those of a target
// first.
func describe(name string, a *rules.Alert) string {
	own := a.Labels.Map()
	delete(own, "alertname")
	delete(own, "severity")
	var list []string
	if own["container"] != "" {
		list = append(list, target)
		for _, l := range []string{"namespace", "pod", "container", "job", "instance"} {
			delete(own, l)
		}
	}
	for _, l := range slices.Sorted(maps.Keys(own)) {
		list = append(list, fmt.Sprintf("%s=%q", l, own[l]))
	}
	return name + "{" + strings.Join(list, ", ") + "} " + a.Annotations.Get("summary")
}
