package nameserver

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ReadTCP reads a message with its length in front (RFC 1035 section 4.2.2).
func ReadTCP(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, int(n[0])<<8|int(n[1]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// handle answers a query, or does not.
func (s *Server) handle(ctx context.Context, up *listeners, b []byte, tcp bool, send func([]byte)) {
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		s.t.Errorf("the name server cannot read a query: %x", b)
		return
	}
	q, r := s.plan(m.Questions[0], tcp)
	if r.Drop {
		return
	}
	answer := func() {
		for _, b := range s.messages(&m, q, r) {
			send(b)
		}
	}
	if r.Wait == nil {
		answer()
		return
	}
	up.work.Go(func() {
		select {
		case <-r.Wait:
			answer()
		case <-ctx.Done():
		}
	})
}

// plan counts a query and says what becomes of it.
func (s *Server) plan(asked dnsmessage.Question, tcp bool) (Query, Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := Query{Name: strings.ToLower(asked.Name.String()), Type: asked.Type}
	before := s.asked[q]
	s.asked[q]++
	q.TCP, q.Before = tcp, before
	s.queries = append(s.queries, q)
	r := Reply{TTL: 5 * time.Second}
	name := q.Name
	if z := s.zone[name]; z.alias != "" {
		r.Alias, name = z.alias, strings.ToLower(z.alias)
	}
	if z, ok := s.zone[name]; ok {
		r.Addrs, r.TTL = z.addrs, z.ttl
	} else {
		r.RCode = dnsmessage.RCodeNameError
	}
	if s.change != nil {
		s.change(q, &r)
	}
	return q, r
}

// messages returns the answer, and before it those of a forger.
func (s *Server) messages(m *dnsmessage.Message, q Query, r Reply) (out [][]byte) {
	if r.Raw != nil {
		return [][]byte{r.Raw}
	}
	pack := func(id uint16, asked dnsmessage.Question, r Reply) []byte {
		b, err := build(id, asked, r).Pack()
		if err != nil {
			s.t.Errorf("the name server cannot pack an answer: %v", err)
		}
		return b
	}
	asked := m.Questions[0]
	forged := Reply{Addrs: []netip.Addr{Forged, netip.AddrFrom16(Forged.As16())}, TTL: time.Hour}
	if r.WrongID {
		out = append(out, pack(m.ID+1, asked, forged))
	}
	if r.WrongName {
		other := asked
		other.Name = dnsmessage.MustNewName("forged.test.")
		out = append(out, pack(m.ID, other, forged))
	}
	b := pack(m.ID, asked, r)
	if !q.TCP && (r.Truncated || len(b) > room(m)) {
		head := build(m.ID, asked, Reply{RCode: r.RCode})
		head.Truncated, head.Authorities = true, nil
		b, _ = head.Pack()
	}
	return append(out, b)
}

// room returns how long an answer by UDP may be.
func room(m *dnsmessage.Message) int {
	for _, a := range m.Additionals {
		if a.Header.Type == dnsmessage.TypeOPT {
			return max(int(a.Header.Class), 512) // RFC 6891 section 6.2.3
		}
	}
	return 512
}

func build(id uint16, asked dnsmessage.Question, r Reply) *dnsmessage.Message {
	m := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: r.RCode},
		Questions: []dnsmessage.Question{asked},
	}
	h := dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET, TTL: uint32(r.TTL / time.Second)}
	if r.Alias != "" {
		target := dnsmessage.MustNewName(r.Alias)
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: target}})
		h.Name = target
	}
	found := false
	for _, a := range r.Addrs {
		var body dnsmessage.ResourceBody
		switch {
		case a.Is4() && asked.Type == dnsmessage.TypeA:
			body = &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && asked.Type == dnsmessage.TypeAAAA:
			body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		if r.RCode != dnsmessage.RCodeSuccess {
			continue
		}
		found = true
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: body})
	}
	if !found && (r.RCode == dnsmessage.RCodeSuccess || r.RCode == dnsmessage.RCodeNameError) { // RFC 2308 section 3
		soa := &dnsmessage.SOAResource{NS: asked.Name, MBox: asked.Name, MinTTL: h.TTL}
		m.Authorities = append(m.Authorities, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET, TTL: h.TTL}, Body: soa,
		})
	}
	return m
}
