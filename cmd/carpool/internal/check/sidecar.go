package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/status"
	"github.com/carpoolproxy/carpool/pool"
)

// Pool is what the carpool that serves in this pod has for the origins of the target.
type Pool struct {
	// Listen is where it was asked.
	Listen string `json:"listen"`
	// Origins are as the admin listener tells of them at /origin.
	Origins []admin.OriginState `json:"origins"`
	Error   string              `json:"error,omitempty"`
}

// sidecar asks the carpool that serves. Nothing that it says makes a check fail: it has a past, which a check has not.
func (t *trip) sidecar(ctx context.Context) found {
	if t.origin == nil {
		return found{}
	}
	from := asked{t.cfg.AdminListen}
	p := Pool{Listen: t.cfg.AdminListen, Origins: []admin.OriginState{}}
	keys := []pool.Key{t.origin.Key()}
	if k := t.origin.Key(); k.TLS && k.Way == pool.Directly { // tunnels have an origin of their own
		k.TLS = false
		keys = append(keys, k)
	}
	for _, k := range keys {
		var s admin.OriginState
		if err := from.get(ctx, "/origin?url="+url.QueryEscape(strings.TrimPrefix(k.String(), "next hop ")), &s); err != nil {
			p.Error = logs.Text(err.Error())
			line := p.Error
			if no, ok := errors.AsType[*net.OpError](err); ok && no.Op == "dial" {
				line = fmt.Sprintf("no carpool answers at %s (CARPOOL_ADMIN_LISTEN): %s", from.listen, reason(err))
			}
			return found{state: Unknown, lines: []string{line}, facts: p}
		}
		p.Origins = append(p.Origins, s)
	}
	f := p.found(keys[0].Authority())
	f.facts = p
	return f
}

// found makes lines of the answers.
func (p *Pool) found(authority string) found {
	f := found{}
	if state := p.Origins[0].State; state != "ready" {
		f.state, f.lines = Warning, []string{"the carpool of this pod is not ready: " + logs.Text(state)}
	}
	known := 0
	for i := range p.Origins {
		if s := &p.Origins[i]; s.Known {
			known++
			lines, warn := origin(s)
			f.lines = append(f.lines, lines...)
			if warn {
				f.state = Warning
			}
		}
	}
	if known == 0 {
		f.lines = append(f.lines, "the carpool of this pod has had no request for "+authority+" of late")
	}
	return f
}

// origin are the lines of what the sidecar has for an origin, and whether they deserve a look.
func origin(s *admin.OriginState) (lines []string, warn bool) {
	lines = append(lines, fmt.Sprintf("the carpool of this pod has %s idle and %d in use for %s",
		count(s.Idle, "connection"), s.InUse, logs.Text(s.Origin)))
	line := fmt.Sprintf("%s on %s", count(int(s.Opened+s.Reused), "request"), count(int(s.Opened), "connection"))
	if s.DialErrors > 0 {
		line += fmt.Sprintf(", and %s that could not be opened", count(int(s.DialErrors), "connection"))
	}
	if s.Waiting > 0 {
		line, warn = line+fmt.Sprintf("; %d wait for one", s.Waiting), true
	}
	lines = append(lines, line)
	if s.Next != "" {
		lines = append(lines, "the next request goes to "+logs.Text(s.Next)+": "+logs.Text(s.Why))
	}
	more, look := special(s)
	return append(lines, more...), warn || look
}

// special are the lines of what is not as usual.
func special(s *admin.OriginState) (lines []string, warn bool) {
	if !s.Keeps {
		lines, warn = append(lines, "its connections are not kept: "+status.Meaning(pool.NotTrusted)), true
	}
	if s.IdleHint > 0 {
		lines = append(lines, fmt.Sprintf("the upstream says that connections may idle for %.0f s", s.IdleHint))
	}
	if s.IdleLimit > 0 {
		lines = append(lines, fmt.Sprintf("the upstream was seen to close connections that idle for %.1f s", s.IdleLimit))
	}
	if s.Stale {
		lines, warn = append(lines, "the name servers fail, so the last addresses are used on: "+logs.Text(s.LookUp)), true
	}
	var benched []string
	for _, a := range s.Addrs {
		switch left := time.Duration(a.BenchedFor * float64(time.Second)); {
		case a.Benched != "" && left > 0:
			benched = append(benched, fmt.Sprintf("%s is left alone for %s: %s", a.Addr, short(left), logs.Text(a.Benched)))
		case a.Benched != "":
			benched = append(benched, fmt.Sprintf("%s is on trial: %s", a.Addr, logs.Text(a.Benched)))
		}
	}
	return append(lines, bounded(benched, 4)...), warn || len(benched) > 0
}
