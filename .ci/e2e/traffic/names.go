package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names is the name server of the load pods, on UDP port 5353. It passes
// questions on to its own, so that it can be taken away without taking the
// cluster's away, and counts them. It gives addresses in random order, as
// CoreDNS does in most clusters (loadbalance).
//
//	EXTERNAL  a name and a host of the cluster, such as api.example.com=upstream:
//	          the name has that host's address, and lives 30 s
func names() error {
	server, err := ownServer()
	if err != nil {
		return err
	}
	external, host, ok := strings.Cut(os.Getenv("EXTERNAL"), "=")
	if !ok {
		return fmt.Errorf("EXTERNAL=%q: want NAME=HOST", os.Getenv("EXTERNAL"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	cancel()
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: 5353})
	if err != nil {
		return err
	}
	r := &relay{
		conn:      conn,
		server:    server,
		external:  external + ".",
		addr:      addrs[0].As4(),
		questions: make(map[string]map[string]int),
	}
	go show(func() []byte {
		r.mu.Lock()
		defer r.mu.Unlock()
		return encoded(r.questions)
	})
	return r.serve()
}

// ownServer returns the first name server that resolv.conf has.
func ownServer() (string, error) {
	file, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "nameserver" {
			return net.JoinHostPort(words[1], "53"), nil
		}
	}
	return "", fmt.Errorf("resolv.conf names no server")
}

// relay passes questions on.
type relay struct {
	conn     *net.UDPConn
	server   string // address and port
	external string // with the last dot
	addr     [4]byte

	mu        sync.Mutex                // guards questions; not held during I/O
	questions map[string]map[string]int // by client, and by type and name
}

func (r *relay) serve() error {
	for {
		buffer := make([]byte, 4096)
		n, client, err := r.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return err
		}
		go func() {
			answer, err := r.answer(client.Addr().Unmap(), buffer[:n])
			if err != nil {
				log.Print(err) // the client asks again
				return
			}
			_, _ = r.conn.WriteToUDPAddrPort(answer, client)
		}()
	}
}

func (r *relay) answer(client netip.Addr, query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	r.count(client, q)
	if q.Name.String() == r.external {
		return r.own(header, q)
	}
	return r.ask(query)
}

func (r *relay) count(client netip.Addr, q dnsmessage.Question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.questions[client.String()]
	if of == nil {
		of = make(map[string]int)
		r.questions[client.String()] = of
	}
	of[strings.TrimPrefix(q.Type.String(), "Type")+" "+q.Name.String()]++
}

// own answers a question for the external name.
func (r *relay) own(header dnsmessage.Header, q dnsmessage.Question) ([]byte, error) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	if q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 30},
			Body:   &dnsmessage.AResource{A: r.addr},
		}}
	}
	return m.Pack()
}

// ask passes a question on.
func (r *relay) ask(query []byte) ([]byte, error) {
	conn, err := net.Dial("udp", r.server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := conn.Read(answer)
	if err != nil {
		return nil, err
	}
	return shuffled(answer[:n])
}

// shuffled returns an answer with its records in random order.
func shuffled(answer []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		return nil, err
	}
	rand.Shuffle(len(m.Answers), func(i, j int) { m.Answers[i], m.Answers[j] = m.Answers[j], m.Answers[i] })
	return m.Pack()
}
