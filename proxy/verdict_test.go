package proxy

import (
	"testing"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// TestVerdicts is the whole of the rules for how exchanges end.
func TestVerdicts(t *testing.T) {
	wrong := &http1.Error{Status: 400, Text: "odd"}
	usual := facts{accepted: true, read: true, sent: true, persists: true, kept: true, replayable: true}
	with := func(change ...func(*facts)) facts {
		f := usual
		for _, c := range change {
			c(&f)
		}
		return f
	}
	at := func(got progress) func(*facts) { return func(f *facts) { f.got = got } }
	up := func(why fault) func(*facts) { return func(f *facts) { f.upstream, f.wrong = why, wrong } }
	down := func(why fault) func(*facts) { return func(f *facts) { f.client, f.wrong = why, wrong } }
	reused := func(f *facts) { f.reused = true }
	post := func(f *facts) { f.replayable = false }
	long := func(f *facts) { f.kept = false }
	retried := func(f *facts) { f.retried = true }
	unsent := func(f *facts) { f.accepted, f.sent = false, false }
	half := func(f *facts) { f.sent = false }
	unread := func(f *facts) { f.read = false }
	gone := func(f *facts) { f.gone = true }
	dead := func(f *facts) { f.dead = true }
	unprocessed := func(f *facts) { f.unprocessed = true }
	thrice := func(f *facts) { f.declined = 3 }
	late := func(f *facts) { f.late = true }
	idled := func(f *facts) { f.idledOut = true }
	last := func(f *facts) { f.last = true }
	suspect := func(f *facts) { f.suspect = true }
	stray := func(f *facts) { f.stray = true }
	upgrade := func(f *facts) { f.upgrade, f.replayable = true, false }
	switched := func(f *facts) { f.switched = true }
	connect := func(f *facts) { f.connect, f.replayable, f.persists = true, false, false }
	brief := func(f *facts) { f.persists = false }
	unlent := func(p *problem) func(*facts) { return func(f *facts) { f.unlent, f.accepted = p, false } }
	for name, c := range map[string]struct {
		f       facts
		problem *problem
		reason  pool.Reason
		next    step
	}{
		// No connection.
		"refused":                        {with(unlent(&problemRefused)), &problemRefused, "", following},
		"refused, and a body to come":    {with(unlent(&problemRefused), unread), &problemRefused, "", closing},
		"refused, and the client ends":   {with(unlent(&problemRefused), brief), &problemRefused, "", closing},
		"forbidden":                      {with(unlent(&problem{status: 403})), &problem{status: 403}, "", closing},
		"the client left while it waits": {with(unlent(&problemClientGone)), &problemClientGone, "", closing},

		// Not a byte was accepted: whatever it is, it is sent again, once.
		"nothing sent, kept connection":  {with(unsent, up(failed), reused), nil, pool.ClosedOnReuse, again},
		"nothing sent, fresh connection": {with(unsent, up(failed)), nil, pool.BadAnswer, again},
		"nothing sent of a POST":         {with(unsent, up(failed), reused, post, long), nil, pool.ClosedOnReuse, again},
		"nothing sent, the peer is dead": {with(unsent, up(vanished), reused), nil, pool.PeerDead, again},
		"nothing sent the second time":   {with(unsent, up(failed), retried), &problemTerminated, pool.BadAnswer, closing},
		"nothing sent, the client left":  {with(unsent, up(failed), gone), &problemClientGone, pool.ClientGone, closing},

		// Sent, and not a byte came.
		"kept connection closed":                {with(reused, up(failed)), nil, pool.ClosedOnReuse, again},
		"kept connection closed, half was sent": {with(reused, up(failed), half), nil, pool.ClosedOnReuse, again},
		"kept connection closed on a POST":      {with(reused, up(failed), post), &problemReuse, pool.ClosedOnReuse, following},
		"kept connection closed, long body":     {with(reused, up(failed), long), &problemTerminated, pool.ClosedOnReuse, following},
		"kept connection closed, second time":   {with(reused, up(failed), retried), &problemTerminated, pool.ClosedOnReuse, following},
		"kept connection to a dead peer":        {with(reused, up(vanished)), nil, pool.PeerDead, again},
		"kept connection to a dead peer, POST":  {with(reused, up(vanished), post), &problemDead, pool.PeerDead, following},
		"fresh connection closed":               {with(up(failed)), &problemTerminated, pool.BadAnswer, following},
		"fresh connection to a dead peer":       {with(up(vanished)), &problemDead, pool.PeerDead, following},
		"found dead":                            {with(reused, up(timedOut), dead), &problemDead, pool.PeerDead, following},
		"too slow":                              {with(reused, up(timedOut)), &problemTimeout, pool.TimedOut, following},
		"too slow, half was sent":               {with(up(timedOut), half), &problemTimeout, pool.TimedOut, closing},

		// The upstream says that it did nothing of it (HTTP/2).
		"unprocessed":                       {with(up(failed), unprocessed), nil, pool.NotKept, again},
		"unprocessed POST":                  {with(up(failed), unprocessed, post), nil, pool.NotKept, again},
		"unprocessed POST, half was sent":   {with(reused, up(failed), unprocessed, post, half), nil, pool.NotKept, again},
		"unprocessed, long body":            {with(up(failed), unprocessed, post, long), &problemTerminated, pool.BadAnswer, following},
		"unprocessed after a retry":         {with(up(failed), unprocessed, retried), nil, pool.NotKept, again},
		"unprocessed the fourth time":       {with(up(failed), unprocessed, thrice), &problemTerminated, pool.BadAnswer, following},
		"unprocessed, and the client left":  {with(up(failed), unprocessed, gone), &problemClientGone, pool.ClientGone, closing},
		"unprocessed, and the body is none": {with(up(failed), unprocessed, down(garbled), unread), badRequest(wrong), pool.ClientGone, closing},

		// The client.
		"the client left":              {with(reused, up(timedOut), gone), &problemClientGone, pool.ClientGone, closing},
		"the client left in its body":  {with(up(timedOut), down(failed), unread), &problemClientGone, pool.ClientGone, closing},
		"the client is too slow":       {with(up(timedOut), down(timedOut), unread), &problemBodyTimeout, pool.ClientGone, closing},
		"the client was cut off":       {with(up(timedOut), down(timedOut), gone), &problemClientGone, pool.ClientGone, closing},
		"the client's body is not one": {with(up(timedOut), down(garbled), unread), badRequest(wrong), pool.ClientGone, closing},

		// What came is no answer.
		"no HTTP":                        {with(up(garbled), at(begun)), badResponse(wrong), pool.BadAnswer, following},
		"late bytes":                     {with(reused, up(garbled), at(begun), late), nil, pool.StrayBytes, again},
		"late bytes before a POST":       {with(reused, up(garbled), at(begun), late, post), &problemStray, pool.StrayBytes, following},
		"late bytes again":               {with(reused, up(garbled), at(begun), late, retried), &problemStray, pool.StrayBytes, following},
		"broken off in the head":         {with(reused, up(failed), at(begun)), &problemIncomplete, pool.BadAnswer, following},
		"dead in the head":               {with(reused, up(vanished), at(begun)), &problemIncomplete, pool.PeerDead, following},
		"no body":                        {with(up(garbled), at(headed)), &problemProtocol, pool.BadAnswer, following},
		"408 of an idle connection":      {with(reused, at(headed), idled), nil, pool.NotKept, again},
		"408 and close":                  {with(reused, at(headed), idled, last), nil, pool.ClosedOnReuse, again},
		"408 for a POST":                 {with(reused, at(headed), idled, post), nil, "", passOn},
		"408 twice":                      {with(reused, at(headed), idled, retried), nil, "", passOn},
		"408, and the upload went wrong": {with(reused, at(headed), idled, down(failed)), nil, "", passOn},
		"an answer":                      {with(at(headed)), nil, "", passOn},
		"101 that was asked for":         {with(at(headed), switched, upgrade), nil, "", passOn},
		"101 out of the blue":            {with(at(headed), switched), &problemUpgrade, pool.BadAnswer, following},
		"101 in the midst of a body":     {with(at(headed), switched, upgrade, half), &problemUpgrade, pool.BadAnswer, closing},

		// Passed on in part.
		"broken off":                {with(at(passing), up(failed)), &problemIncomplete, pool.BadAnswer, closing},
		"broken off by death":       {with(at(passing), up(vanished)), &problemIncomplete, pool.PeerDead, closing},
		"bad chunks":                {with(at(passing), up(garbled)), &problemIncomplete, pool.BadAnswer, closing},
		"silent":                    {with(at(passing), up(timedOut)), &problemTimeout, pool.TimedOut, closing},
		"the client does not read":  {with(at(passing), down(timedOut)), &problemClientGone, pool.ClientGone, closing},
		"the client left midway":    {with(at(passing), up(timedOut), gone), &problemClientGone, pool.ClientGone, closing},
		"the request's body is bad": {with(at(passing), up(failed), down(garbled)), &problemIncomplete, pool.BadAnswer, closing},

		// Whole answers.
		"kept":                              {with(at(complete)), nil, "", following},
		"kept, and the client ends":         {with(at(complete), brief), nil, "", closing},
		"the client left at the end":        {with(at(complete), gone), nil, pool.ClientGone, following},
		"died at the end":                   {with(at(complete), dead), nil, pool.ClientGone, following},
		"more came behind it":               {with(at(complete), stray, last), nil, pool.StrayBytes, following},
		"answered early":                    {with(at(complete), half), nil, pool.EarlyAnswer, following},
		"answered early, and unread":        {with(at(complete), half, unread), nil, pool.EarlyAnswer, closing},
		"a 408 as it may be":                {with(at(complete), idled), nil, pool.NotKept, following},
		"a 408 with close":                  {with(at(complete), idled, last, suspect), nil, pool.ClosedOnReuse, following},
		"odd":                               {with(at(complete), suspect, last), nil, pool.BadAnswer, following},
		"the last":                          {with(at(complete), last), nil, pool.NotKept, following},
		"an upgrade declined":               {with(at(complete), upgrade), nil, pool.NotKept, following},
		"a tunnel has ended":                {with(at(complete), connect), nil, pool.Tunnelled, closing},
		"a tunnel was ended":                {with(at(complete), connect, gone), nil, pool.Tunnelled, closing},
		"the client left before its tunnel": {with(at(passing), connect, down(failed)), &problemClientGone, pool.ClientGone, closing},
		"an upgraded connection has ended":  {with(at(complete), upgrade, switched, brief), nil, pool.Upgraded, closing},
	} {
		t.Run(name, func(t *testing.T) {
			v := c.f.judge()
			if v.reason != c.reason || v.next != c.next || (v.problem == nil) != (c.problem == nil) ||
				v.problem != nil && *v.problem != *c.problem {
				t.Errorf("judged %+v (%v), want %v, %q, %d", v, v.problem, c.problem, c.reason, c.next)
			}
		})
	}
}

// TestTheRetryRuleHolds goes through all facts: a request is only ever sent again
// where that does no harm.
func TestTheRetryRuleHolds(t *testing.T) {
	const flags = 17
	retries := 0
	for bits := range 1 << flags {
		on := func(i int) bool { return bits>>i&1 != 0 }
		f := facts{
			accepted: on(0), read: on(1), sent: on(2), replayable: on(3), kept: on(4), retried: on(5), upgrade: on(6),
			persists: on(7), reused: on(8), gone: on(9), dead: on(10), late: on(11), idledOut: on(12), switched: on(13),
			last: on(14), suspect: on(15), stray: on(16), wrong: &http1.Error{Status: 400},
		}
		for f.got = unanswered; f.got <= complete; f.got++ {
			for f.client = fine; f.client <= garbled; f.client++ {
				for f.upstream = fine; f.upstream <= garbled; f.upstream++ {
					v := f.judge()
					if v.next != again {
						continue
					}
					retries++
					nothing := !f.accepted && f.got <= begun && !f.gone
					harmless := f.reused && f.replayable && f.kept && f.upstream != timedOut && f.client == fine
					if f.retried || v.problem != nil || v.reason == "" || f.got > headed || !nothing && !harmless {
						t.Fatalf("%+v is sent again: %+v", f, v)
					}
				}
			}
		}
	}
	if retries == 0 {
		t.Error("nothing is ever sent again")
	}
}
