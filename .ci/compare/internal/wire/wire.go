// Package wire is what load and upstream say to each other: requests that carry an id, answers that carry it back, and
// messages for tunnels, whose bytes are no HTTP.
package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const (
	// IDLen is the length of an id, in hexadecimal.
	IDLen = 16
	// IDHeader is the field that carries a request's id.
	IDHeader = "X-Request-Id"
	// IDOffset is where the id stands in the body of an answer.
	IDOffset = len(`{"id":"`)
	// Small is the length of a small answer's body.
	Small = 64

	noID  = "0000000000000000"
	small = `{"id":"` + noID + `","ok":true,"name":"carpool","n":[1,2,3]}`
)

// PutID writes an id.
func PutID(into []byte, id uint64) {
	const digits = "0123456789abcdef"
	for i := IDLen - 1; i >= 0; i-- {
		into[i] = digits[id&15]
		id >>= 4
	}
}

// A Text is bytes to send, in which an id is set at ID.
type Text struct {
	Bytes []byte
	ID    int
}

// Request is what an axios client sends through a proxy, about 400 bytes of head: to the URL, of which host is the
// authority, with a body of so many bytes, which makes it a POST.
func Request(url, host string, body int, last bool) Text {
	method, more, connection := "GET", "", "keep-alive"
	if body > 0 {
		method, more = "POST", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", body)
	}
	if last {
		connection = "close"
	}
	head := method + " " + url + " HTTP/1.1\r\n" +
		"Accept: application/json, text/plain, */*\r\n" + more +
		"User-Agent: axios/1.7.2\r\n" +
		"Accept-Encoding: gzip, compress, deflate, br\r\n" +
		IDHeader + ": " + noID + "\r\n" +
		"Authorization: Bearer 8f14e45fceea167a5a36dedd4bea2543c9f0f895\r\n" +
		"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
		"Host: " + host + "\r\nConnection: " + connection + "\r\n\r\n"
	return Text{Bytes: []byte(head + strings.Repeat("x", body)), ID: strings.Index(head, IDHeader) + len(IDHeader) + 2}
}

// Connect asks a proxy for a tunnel.
func Connect(host string) Text {
	return Text{Bytes: []byte("CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"), ID: -1}
}

// A message begins as a record of TLS does, so that a proxy that looks takes it for that: the tag, the lengths of
// message and answer in hexadecimal, and the id.
const (
	tag       = "\x16\x03\x01"
	lengths   = len(tag)
	messageID = lengths + 16
	// MessageHead is the shortest length of a message.
	MessageHead = messageID + IDLen
)

// Message is one for tunnels: up bytes, at least MessageHead, that ask for down bytes, at least IDLen.
func Message(up, down int) Text {
	head := fmt.Sprintf("%s%08x%08x%s", tag, up, down, noID)
	return Text{Bytes: []byte(head + strings.Repeat("y", max(0, up-len(head)))), ID: messageID}
}

// An Asked is what an upstream was asked for.
type Asked struct {
	Kind Kind
	Head int    // how long its head is
	Body int    // how many bytes follow the head
	Size int    // how many bytes the answer's body has
	ID   []byte // within what was read
	Last bool   // the connection ends with the answer
}

// A Kind tells the things apart that an upstream can be asked for.
type Kind uint8

// The zero Kind is a request of HTTP.
const (
	HTTP Kind = iota
	Tunnel
	Bytes
	Counts
)

// Read reads what an upstream was asked for; ok is false if its head is not whole.
func Read(b []byte) (a Asked, ok bool, err error) {
	if b[0] == tag[0] {
		return readMessage(b)
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 8<<10 {
			return a, false, fmt.Errorf("no end of a head in %d bytes", len(b))
		}
		return a, false, nil
	}
	a = Asked{Head: end + 4, Size: Small}
	line, fields, _ := bytes.Cut(b[:end+2], []byte("\r\n"))
	switch _, path, found := bytes.Cut(line, []byte("/size/")); {
	case bytes.HasPrefix(line, []byte("CONNECT ")):
		a.Kind = Tunnel
	case bytes.HasPrefix(line, []byte("GET /counts ")):
		a.Kind = Counts
	case found:
		size, _, _ := bytes.Cut(path, []byte(" "))
		if a.Size, err = strconv.Atoi(string(size)); err != nil || a.Size < Small {
			return a, false, fmt.Errorf("%q asks for no size of %d or more", line, Small)
		}
	}
	err = a.fields(fields)
	return a, err == nil, err
}

func readMessage(b []byte) (a Asked, ok bool, err error) {
	if len(b) < MessageHead {
		return a, false, nil
	}
	var n [2]int
	for i := range n {
		v, err := strconv.ParseUint(string(b[lengths+8*i:lengths+8*i+8]), 16, 31)
		if err != nil {
			return a, false, fmt.Errorf("a message's length: %w", err)
		}
		n[i] = int(v)
	}
	return Asked{Kind: Bytes, Head: MessageHead, Body: n[0] - MessageHead, Size: n[1], ID: b[messageID:MessageHead]}, true, nil
}

func (a *Asked) fields(fields []byte) error {
	for len(fields) > 0 {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case len(name) == len(IDHeader) && bytes.EqualFold(name, []byte(IDHeader)):
			a.ID = value
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(value))
			if err != nil {
				return fmt.Errorf("Content-Length: %w", err)
			}
			a.Body = n
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return fmt.Errorf("a body in %q: its length was known to the client", value)
		case bytes.EqualFold(name, []byte("Connection")):
			a.Last = bytes.EqualFold(value, []byte("close"))
		}
	}
	return nil
}

// Established is the answer to CONNECT.
const Established = "HTTP/1.1 200 Connection established\r\n\r\n"

// AppendAnswer appends the beginning of the answer to what was asked, with its id; so many bytes follow it.
func AppendAnswer(b []byte, a Asked) (answer []byte, follow int) {
	switch a.Kind {
	case Tunnel:
		return append(b, Established...), 0
	case Bytes:
		return append(b, a.ID...), max(0, a.Size-IDLen)
	}
	b = append(b, "HTTP/1.1 200 OK\r\nServer: compare\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(a.Size), 10)
	if a.Last {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n\r\n"...)
	return AppendBody(b, a.ID), a.Size - Small
}

// AppendBody appends the first Small bytes of an answer's body.
func AppendBody(b, id []byte) []byte {
	at := len(b)
	b = append(b, small...)
	if len(id) == IDLen {
		copy(b[at+IDOffset:], id)
	}
	return b
}

// An Answer is what is known of an answer by its head.
type Answer struct {
	Head   int // how long the head is
	Status int
	Body   int  // length of the body
	Last   bool // the connection ends with the answer
}

// ReadAnswer reads the head of an answer; ok is false if it is not whole. An answer whose end is not told by
// Content-Length is an error: the upstream tells it.
func ReadAnswer(b []byte) (a Answer, ok bool, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return a, false, nil
	}
	if len(b) < 12 || !bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return a, false, fmt.Errorf("no answer of HTTP/1: %.40q", b)
	}
	a = Answer{Head: end + 4, Body: -1, Last: b[7] == '0'}
	if a.Status, err = strconv.Atoi(string(b[9:12])); err != nil {
		return a, false, fmt.Errorf("no status: %.40q", b)
	}
	_, fields, _ := bytes.Cut(b[:end+2], []byte("\r\n"))
	for len(fields) > 0 {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("Content-Length")):
			if a.Body, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return a, false, fmt.Errorf("Content-Length: %w", err)
			}
		case len(name) == 10 && bytes.EqualFold(name, []byte("Connection")):
			a.Last = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	return a, true, nil
}
