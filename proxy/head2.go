package proxy

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/pool/h2"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// Heads of HTTP/1.1 as those of HTTP/2, and back (RFC 9113 section 8). The order of
// fields and repeats stay, letter case does not.

// shareText bounds the heads whose fields share one string. Some of it may be kept
// for long, in the table by which heads are compressed.
const shareText = 4 << 10

// appendRequest2 appends the fields of a request. chunked says that its body is in
// chunks.
func appendRequest2(fields []h2.Field, head []byte, tls bool) (_ []h2.Field, isHead, chunked bool) {
	text := string(head)
	line, rest, _ := strings.Cut(text, "\r\n")
	method, line, _ := strings.Cut(line, " ")
	path := strings.TrimSuffix(line, " HTTP/1.1")
	scheme := "http"
	if tls {
		scheme = "https"
	}
	own := func(s string) string { return s }
	if len(text) > shareText {
		own = strings.Clone
	}
	fields = append(fields,
		h2.Field{Name: ":method", Value: own(method)}, h2.Field{Name: ":scheme", Value: scheme},
		h2.Field{Name: ":authority"}, h2.Field{Name: ":path", Value: own(path), Sensitive: len(path) > 64 || strings.Contains(path, "?")})
	const authority = 2
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			break // the empty line
		}
		name, value = lower(name), own(strings.Trim(value, " \t"))
		switch {
		case name == "host":
			fields[authority].Value = value
		case hop(name), name == "http2-settings":
			chunked = chunked || name == "transfer-encoding"
		case name == "cookie":
			fields = appendCrumbs(fields, value)
		default:
			fields = append(fields, h2.Field{Name: name, Value: value, Sensitive: fleeting[name]})
		}
	}
	return fields, method == "HEAD", chunked
}

// appendCrumbs appends a cookie in parts, which compress better (RFC 9113 section
// 8.2.3).
func appendCrumbs(fields []h2.Field, value string) []h2.Field {
	for more := true; more; {
		var crumb string
		crumb, value, more = strings.Cut(value, "; ")
		fields = append(fields, h2.Field{Name: "cookie", Value: crumb, Sensitive: len(crumb) < 20})
	}
	return fields
}

// fleeting are the fields that are not worth a place in the table, or have no business
// there (RFC 7541 section 7.1).
var fleeting = map[string]bool{
	"authorization": true, "content-length": true, "traceparent": true, "tracestate": true, "x-request-id": true,
	"idempotency-key": true, "if-none-match": true, "if-modified-since": true, "range": true, "date": true,
}

// known are field names as they are mostly written.
var known = func() map[string]string {
	m := map[string]string{}
	for _, name := range strings.Fields(`Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection
		Content-Length Content-Type Cookie Expect Host Idempotency-Key If-Modified-Since If-None-Match Origin Range Referer
		TE Trailer Transfer-Encoding User-Agent Via X-Forwarded-For X-Request-ID X-Request-Id`) {
		m[name] = strings.ToLower(name)
	}
	return m
}()

// lower is a name in lower case.
func lower(name string) string {
	if s, ok := known[name]; ok {
		return s
	}
	return strings.ToLower(name)
}

// hop reports whether a field has no place in HTTP/2 (RFC 9113 section 8.2.2). Some
// servers send them all the same.
func hop(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// appendResponse2 appends the head of an answer in HTTP/1.1. end says that no body
// follows. left is how long the body is, -1 if that is not known.
func appendResponse2(b []byte, status int, fields []h2.Field, end, isHead bool) (_ []byte, left int64) {
	b = append(b, "HTTP/1.1 "...)
	b = http1.AppendInt(b, int64(status))
	b = append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
	left = -1
	for i := range fields {
		f := &fields[i]
		if hop(f.Name) {
			continue
		}
		if f.Name == "content-length" {
			if n, err := strconv.ParseUint(f.Value, 10, 63); err == nil {
				left = int64(n)
			}
		}
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	if status >= 200 && status != 204 && status != 304 && !isHead && left < 0 {
		if end {
			b, left = append(b, "content-length: 0\r\n"...), 0
		} else {
			b = append(b, "transfer-encoding: chunked\r\n"...)
		}
	}
	return append(b, "\r\n"...), left
}

// appendTrailers2 appends those trailers that may be some.
func appendTrailers2(b []byte, fields []h2.Field) []byte {
	for i := range fields {
		f := &fields[i]
		if http1.AllowedInTrailer([]byte(f.Name)) {
			b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
		}
	}
	return b
}

// chunks takes the chunks off a body that http1.Body has let through: their sizes are
// plain numbers, and what is a trailer is one.
type chunks struct {
	line     []byte // the part of a line that has come
	left     int64  // of the chunk
	last     bool   // it was the last
	trailers []h2.Field
}

// next takes from p what is to be passed on, and returns what is behind it.
func (c *chunks) next(p []byte) (data, rest []byte) {
	if c.left > 0 {
		n := int(min(c.left, int64(len(p))))
		c.left -= int64(n)
		return p[:n], p[n:]
	}
	k := bytes.IndexByte(p, '\n')
	if k < 0 {
		c.line = append(c.line, p...)
		return nil, nil
	}
	line := bytes.TrimRight(append(c.line, p[:k]...), "\r")
	c.line = c.line[:0]
	switch {
	case len(line) == 0: // the end of a chunk, or of all
	case c.last:
		name, value, _ := strings.Cut(string(line), ":")
		c.trailers = append(c.trailers, h2.Field{Name: strings.ToLower(name), Value: strings.Trim(value, " \t")})
	default:
		c.left, _ = strconv.ParseInt(string(line), 16, 64) // it was parsed before
		c.last = c.left == 0
	}
	return nil, p[k+1:]
}
