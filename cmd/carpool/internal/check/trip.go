package check

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/pool/names"
	"github.com/carpoolproxy/carpool/proxy"
)

// leg is a part of the way, in the order in which a request takes it.
type leg struct {
	name string
	take func(*trip, context.Context) found
	// always says that it is taken although one before has failed.
	always bool
}

// way is the whole of it. A leg that does not concern a target finds nothing.
var way = []leg{
	{"settings", (*trip).settings, true},
	{"lane", (*trip).lane, false},
	{"policy", (*trip).policy, false},
	{"hop", (*trip).hop, false},
	{"name", (*trip).name, false},
	{"addresses", (*trip).addresses, false},
	{"endpoint", (*trip).endpoint, false},
	{"connect", (*trip).connect, false},
	{"tls", (*trip).tls, false},
	{"answer", (*trip).answer, false},
	{"pool", (*trip).sidecar, true},
}

// found is what a leg has found.
type found struct {
	state State // "" is OK
	lines []string
	facts any // nil: nothing
	// answer is what the app gets if the leg has failed, and do what to do about it, "" if the answer says so.
	answer *proxy.Answer
	do     string
	// why is the reason where that is known better than the answer says it.
	why string
	// but are those who would not notice; "" is nobody.
	but string
}

func failed(facts any, a proxy.Answer, do string, lines ...string) found {
	return found{state: Failed, lines: lines, facts: facts, answer: &a, do: do}
}

// trip is a check on its way.
type trip struct {
	target
	cfg     config.Config
	verbose bool
	pool    *pool.Pool
	proxy   *proxy.Proxy
	egress  *proxy.Egress
	notes   notes

	// What legs have found for those behind them.
	aim     proxy.Aim
	tunnel  *proxy.Answer // the refusal of a CONNECT
	origin  *pool.Origin
	host    names.Explanation
	trial   pool.Trial
	reached string // what the upstream has answered
}

// notes is what the code that serves tells of meanwhile. It is safe for concurrent use.
type notes struct {
	mu       sync.Mutex
	asked    []names.Asked
	reported []proxy.Reported
}

// wiring is what settings and the files that they name say.
type wiring struct {
	cfg      config.Config
	certs    certs.Set
	userinfo string // for the next hop
}

// check takes all legs. The error means that there is no report: what carpool itself needs is short.
func (w wiring) check(ctx context.Context, to target, verbose bool) (Report, error) {
	t := &trip{target: to, cfg: w.cfg, verbose: verbose}
	t.egress = outbound.Egress(w.cfg, w.cfg.Listeners(), func(r proxy.Reported) {
		t.notes.mu.Lock()
		defer t.notes.mu.Unlock()
		t.notes.reported = append(t.notes.reported, r)
	})
	hop := outbound.Hop(w.cfg, w.userinfo, nil)
	pc := outbound.Pool(w.cfg, t.egress, hop, w.certs)
	pc.DNSAsked = func(a names.Asked) {
		t.notes.mu.Lock()
		defer t.notes.mu.Unlock()
		t.notes.asked = append(t.notes.asked, a)
	}
	var err error
	if t.pool, err = pool.New(pc); err != nil {
		return Report{}, err
	}
	defer t.pool.Close()
	if t.proxy, err = proxy.New(outbound.Proxy(w.cfg, t.pool, t.egress, hop)); err != nil {
		return Report{}, err
	}
	defer t.proxy.Close()
	return t.take(ctx), nil
}

// take makes the report.
func (t *trip) take(ctx context.Context) Report {
	r := Report{URL: t.String(), Works: true}
	for _, leg := range way {
		if !r.Works && !leg.always {
			continue
		}
		f := leg.take(t, ctx)
		if f.facts == nil {
			continue
		}
		r.Steps = append(r.Steps, Step{leg.name, cmp.Or(f.state, OK), append([]string{}, f.lines...), f.facts})
		if f.state == Failed && r.Works {
			r.fail(f)
		}
	}
	if r.Works {
		r.Conclusion = "would work: " + t.works()
	}
	return r
}

func (r *Report) fail(f found) {
	r.Works = false
	r.Answer = &Answer{f.answer.Status, f.answer.Error, f.answer.Text, f.answer.Rule}
	text, _, _ := strings.Cut(cmp.Or(f.why, f.answer.Text), "; carpool check ") // this is it
	r.Conclusion = fmt.Sprintf("would fail: %d %s, %s", f.answer.Status, f.answer.Error, text)
	if f.answer.Status == 0 {
		r.Answer, r.Conclusion = nil, "would fail: "+text
	}
	r.But, r.Do = f.but, sentence(f.do)
}

// works says what becomes of a request that works.
func (t *trip) works() string {
	how := "carpool pools its connections"
	switch keeps := t.keeps(); {
	case t.isTunnel() && t.aim.Tunnel:
		how = "a tunnel, which carpool does not look into"
	case t.isTunnel():
		how = "a tunnel; plain HTTP in it is pooled"
	case t.relayed() && !t.verbose:
		how = "the next hop takes the request; -v asks it what becomes of that"
	case !keeps:
		how = "its connections are not kept"
	case t.target.tls:
		how = "a tunnel for most clients, pooled for those that hand https:// to carpool whole"
	}
	if t.reached != "" {
		how = "the upstream answers " + t.reached + "; " + how
	}
	return how
}

// keeps reports whether connections are kept.
func (t *trip) keeps() bool {
	x, ok := t.pool.Inspect(t.origin.Key())
	return ok && x.Keeps && t.cfg.MaxIdlePerHost > 0
}
