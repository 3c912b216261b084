package names

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// packetSize is how long an answer by UDP may be (the DNS flag day of 2020).
	packetSize = 1232
	// packetRoom is for servers that send longer ones all the same.
	packetRoom = 4096
)

// question is what one query asks.
type question struct {
	name string // with its last dot
	kind dnsmessage.Type
}

// reply is what a name server has answered.
type reply struct {
	code      dnsmessage.RCode
	truncated bool
	lame      bool // a referral, from one that does not look things up
	addrs     []netip.Addr
	ttl       time.Duration // the least of all records on the way to the addresses
}

// wire sends queries, over the network.
type wire struct {
	room func() bool // see Config.Room
	sent func()      // counts queries
}

// exchange asks one server one question: by UDP and, if the answer is cut off, by
// TCP; without EDNS of one that knows none. It waits until ctx ends.
func (w *wire) exchange(ctx context.Context, server netip.AddrPort, q question, onlyTCP bool) (reply, error) {
	network := "udp"
	if onlyTCP {
		network = "tcp"
	}
	r, err := w.once(ctx, network, server, q, true)
	edns := r.code != dnsmessage.RCodeFormatError && r.code != dnsmessage.RCodeNotImplemented
	if err == nil && !edns { // RFC 6891 section 7
		r, err = w.once(ctx, network, server, q, false)
	}
	if err == nil && r.truncated && !onlyTCP {
		long, err := w.once(ctx, "tcp", server, q, edns)
		if err == nil || len(r.addrs) == 0 {
			return long, err
		}
	}
	return r, err
}

// once sends one query and reads its answer.
func (w *wire) once(ctx context.Context, network string, server netip.AddrPort, q question, edns bool) (reply, error) {
	id := uint16(rand.Uint32())
	query, err := pack(id, q, edns)
	if err != nil {
		return reply{}, err
	}
	c, err := w.dial(ctx, network, server)
	if err != nil {
		return reply{}, err
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(end)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	w.sent()
	if network == "tcp" {
		return overTCP(c, id, q, query)
	}
	return overUDP(c, id, q, query[2:])
}

func (w *wire) dial(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	for (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) && w.room != nil && w.room() {
		c, err = d.DialContext(ctx, network, server.String())
	}
	return c, err
}

// overUDP waits on when an answer is to another question: anyone may have sent it.
func overUDP(c net.Conn, id uint16, q question, query []byte) (reply, error) {
	if _, err := c.Write(query); err != nil {
		return reply{}, err
	}
	for b := make([]byte, packetRoom); ; {
		n, err := c.Read(b)
		if err != nil {
			return reply{}, err
		}
		if r, ok := read(b[:n], id, q); ok {
			return r, nil
		}
	}
}

var errGarbled = errors.New("the answer of the name server cannot be read")

// overTCP has the length in front of each message (RFC 1035 section 4.2.2).
func overTCP(c net.Conn, id uint16, q question, query []byte) (reply, error) {
	if _, err := c.Write(query); err != nil {
		return reply{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return reply{}, err
	}
	b := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(c, b); err != nil {
		return reply{}, err
	}
	r, ok := read(b, id, q)
	if !ok {
		return reply{}, errGarbled
	}
	return r, nil
}

// pack returns a query with its length in front.
func pack(id uint16, q question, edns bool) ([]byte, error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}},
	}
	if edns {
		opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		if err := opt.Header.SetEDNS0(packetSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		m.Additionals = append(m.Additionals, opt)
	}
	b, err := m.AppendPack(make([]byte, 2, 512))
	if err != nil {
		return nil, err
	}
	b[0], b[1] = byte((len(b)-2)>>8), byte(len(b)-2)
	return b, nil
}

// read reads a message. It reports false if that is no answer to the question, or
// not well-formed.
func read(b []byte, id uint16, q question) (r reply, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.ID != id {
		return r, false
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.kind || asked.Class != dnsmessage.ClassINET || !strings.EqualFold(asked.Name.String(), q.name) {
		return r, false
	}
	if p.SkipAllQuestions() != nil {
		return r, false
	}
	r = reply{code: h.RCode, truncated: h.Truncated}
	if !r.readAnswers(&p) && !h.Truncated {
		return r, false
	}
	known := len(r.addrs) > 0
	if p.SkipAllAnswers() == nil && p.SkipAllAuthorities() == nil {
		extra := r.readAdditionals(&p)
		r.lame = !known && !extra && r.code == dnsmessage.RCodeSuccess && !h.Authoritative && !h.RecursionAvailable
	}
	return r, true
}

// readAnswers takes the addresses from the answers, and reports whether these are
// well-formed.
func (r *reply) readAnswers(p *dnsmessage.Parser) bool {
	least := ^uint32(0)
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return false
		}
		switch h.Type {
		case dnsmessage.TypeA:
			a, err := p.AResource()
			if err != nil {
				return false
			}
			r.addrs = append(r.addrs, netip.AddrFrom4(a.A))
		case dnsmessage.TypeAAAA:
			a, err := p.AAAAResource()
			if err != nil {
				return false
			}
			r.addrs = append(r.addrs, netip.AddrFrom16(a.AAAA).Unmap())
		default:
			if p.SkipAnswer() != nil {
				return false
			}
		}
		if h.TTL > 1<<31-1 { // RFC 2181 section 8
			h.TTL = 0
		}
		least = min(least, h.TTL)
	}
	if len(r.addrs) > 0 {
		r.ttl = time.Duration(least) * time.Second
	}
	return true
}

// readAdditionals completes the code (RFC 6891 section 6.1.3), and reports whether
// there is anything.
func (r *reply) readAdditionals(p *dnsmessage.Parser) (any bool) {
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return any
		}
		any = true
		if h.Type == dnsmessage.TypeOPT {
			r.code = h.ExtendedRCode(r.code)
		}
		if p.SkipAdditional() != nil {
			return any
		}
	}
}
