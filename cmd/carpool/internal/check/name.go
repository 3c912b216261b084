package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/pool/names"
	"github.com/carpoolproxy/carpool/proxy"
)

// Name is what the host resolves to.
type Name struct {
	Host string `json:"host"`
	// From is address, localhost, hosts-file or dns; "" if nothing is found.
	From string `json:"from,omitempty"`
	// Full is the name that has been answered, Search all that Host may stand for, in the order in which they are asked
	// for, and Servers the name servers.
	Full    string           `json:"full,omitempty"`
	Search  []string         `json:"search,omitempty"`
	Servers []netip.AddrPort `json:"servers,omitempty"`
	Asked   []Question       `json:"asked,omitempty"`
	Addrs   []netip.Addr     `json:"addrs"`
	// Held is for how long carpool remembers them.
	Held  float64 `json:"held_seconds"`
	Took  float64 `json:"took_ms"`
	Error string  `json:"error,omitempty"`
}

// Question is one question to a name server.
type Question struct {
	Server netip.AddrPort `json:"server"`
	Name   string         `json:"name"`
	Type   string         `json:"type"`
	// Code is that of the answer, such as NOERROR or NXDOMAIN; "" if there was none.
	Code  string       `json:"code,omitempty"`
	Addrs []netip.Addr `json:"addrs,omitempty"`
	TTL   float64      `json:"ttl_seconds"`
	Took  float64      `json:"took_ms"`
	Error string       `json:"error,omitempty"`
}

// mostQuestions is how many questions are shown.
const mostQuestions = 8

func (t *trip) name(context.Context) found {
	began := time.Now()
	t.host = t.pool.ExplainName(t.origin.LeadsTo().Host)
	took := time.Since(began)
	t.notes.mu.Lock()
	asked := slices.Clone(t.notes.asked)
	t.notes.mu.Unlock()
	x := &t.host
	n := Name{
		Host: x.Host, Full: x.Full, Search: x.Asked, Servers: x.Servers, Addrs: append([]netip.Addr{}, x.Addrs...),
		Held: x.Left.Seconds(), Took: ms(took), From: from(x, len(asked) > 0),
	}
	for _, a := range asked {
		n.Asked = append(n.Asked, newQuestion(a))
	}
	if len(x.Addrs) == 0 {
		n.Error = logs.Text(strings.TrimPrefix(x.Err.Error(), "lookup "))
		a := proxy.DialAnswer(t.dialError(pool.StageDNS, x.Err))
		lines := append([]string{n.Error}, bounded(questions(asked, x.Asked), mostQuestions)...)
		return failed(n, a, t.mendName(), append(lines, t.servers())...)
	}
	return found{lines: t.nameLines(&n, asked), facts: n}
}

// from says where addresses are from.
func from(x *names.Explanation, asked bool) string {
	_, err := netip.ParseAddr(x.Host)
	switch {
	case err == nil:
		return "address"
	case len(x.Addrs) == 0:
		return ""
	case x.File != "":
		return "hosts-file"
	case x.Full == "" && !asked:
		return "localhost"
	}
	return "dns"
}

func newQuestion(a names.Asked) Question {
	q := Question{Server: a.Server, Name: a.Name, Type: a.Type, Code: a.Code, Addrs: a.Addrs, TTL: a.TTL.Seconds(), Took: ms(a.Took)}
	if a.Err != nil {
		q.Error = logs.Text(a.Err.Error())
	}
	return q
}

// nameLines are the lines for a host that has addresses.
func (t *trip) nameLines(n *Name, asked []names.Asked) []string {
	x := &t.host
	switch n.From {
	case "address":
		return []string{"an address: nothing is looked up"}
	case "localhost":
		return []string{"localhost is " + join(x.Addrs) + ", whatever name servers say (RFC 6761)"}
	case "hosts-file":
		return []string{fmt.Sprintf("%s is %s, by %s", x.Host, join(x.Addrs), x.File)}
	}
	lines := []string{fmt.Sprintf("%s is %s; found in %.1f ms, remembered for %s", x.Full, join(x.Addrs), n.Took, seconds(x.Left))}
	lines = append(lines, bounded(questions(asked, x.Asked), mostQuestions)...)
	if i := slices.Index(x.Asked, x.Full); i > 0 {
		lines = append(lines, fmt.Sprintf("the search list has %s asked for first: write %s to spare that", strings.Join(x.Asked[:i], ", "), x.Full))
	}
	return lines
}

// questions are lines of what was asked, one for each server and name, in the order of the search list.
func questions(asked []names.Asked, search []string) (lines []string) {
	slices.SortStableFunc(asked, func(a, b names.Asked) int {
		return cmp.Or(cmp.Compare(slices.Index(search, a.Name), slices.Index(search, b.Name)), cmp.Compare(a.Type, b.Type))
	})
	type pair struct {
		server netip.AddrPort
		name   string
	}
	at := map[pair]int{}
	for _, a := range asked {
		p := pair{a.Server, a.Name}
		i, seen := at[p]
		if !seen {
			i = len(lines)
			at[p] = i
			lines = append(lines, fmt.Sprintf("asked %s for %s", a.Server, a.Name))
		}
		lines[i] += ", " + outcome(a)
	}
	return lines
}

// outcome is what came of a question.
func outcome(a names.Asked) string {
	switch {
	case errors.Is(a.Err, context.Canceled):
		return a.Type + ": not waited for"
	case a.Err != nil && isTimeout(a.Err):
		return a.Type + ": no answer in " + short(a.Took)
	case a.Err != nil:
		return a.Type + ": " + logs.Text(a.Err.Error())
	case a.Code != "NOERROR":
		return fmt.Sprintf("%s: %s (%s)", a.Type, a.Code, short(a.Took))
	case len(a.Addrs) == 0:
		return fmt.Sprintf("%s: none (%s)", a.Type, short(a.Took))
	}
	return fmt.Sprintf("%s: %s, TTL %s (%s)", a.Type, join(a.Addrs), seconds(a.TTL), short(a.Took))
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// join writes a few addresses, and how many more there are.
func join(addrs []netip.Addr) string {
	const most = 4
	var list []string
	for _, a := range addrs[:min(len(addrs), most)] {
		list = append(list, a.String())
	}
	if more := len(addrs) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}

// servers says who is asked.
func (t *trip) servers() string {
	file := "/etc/resolv.conf"
	if t.cfg.ResolvConf != "" {
		file = t.cfg.ResolvConf + " (CARPOOL_RESOLV_CONF)"
	}
	var list []string
	for _, s := range t.host.Servers {
		list = append(list, s.String())
	}
	return fmt.Sprintf("%s has the name servers %s", file, strings.Join(list, ", "))
}

// mendName says what to do about a host without addresses.
func (t *trip) mendName() string {
	var dns *net.DNSError
	if errors.As(t.host.Err, &dns) && dns.IsNotFound {
		if !strings.Contains(strings.TrimSuffix(t.host.Host, "."), ".") {
			return "check the spelling. A short name is looked for in the pod's own namespace: for a Service of another one write NAME.NAMESPACE"
		}
		return "check the spelling, and that the Service or record exists"
	}
	return "check that the name servers run, and that a network policy lets the pod reach them (port 53, UDP and TCP)"
}
