package http1_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// typicalRequest is what axios sends through a proxy.
var typicalRequest = []byte("POST http://orders.shop.svc.cluster.local:8080/api/v1/orders?expand=items HTTP/1.1\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Content-Type: application/json\r\n" +
	"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG\r\n" +
	"X-Request-Id: 6f1f4a52-0e0c-4a4b-8a36-2a6f8f1f9f11\r\n" +
	"User-Agent: axios/1.7.2\r\n" +
	"Content-Length: 82\r\n" +
	"Accept-Encoding: gzip, compress, deflate, br\r\n" +
	"host: orders.shop.svc.cluster.local:8080\r\n" +
	"Cookie: a=1\r\n" +
	"Connection: keep-alive\r\n\r\n")

// typicalResponse is what nginx answers.
var typicalResponse = []byte("HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.27.1\r\n" +
	"Date: Thu, 20 Nov 2026 10:00:00 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 512\r\n" +
	"Last-Modified: Thu, 20 Nov 2026 09:00:00 GMT\r\n" +
	"Connection: keep-alive\r\n" +
	"Keep-Alive: timeout=65\r\n\r\n")

// typicalChunks is 16 KB in chunks, and its copy to decode in place.
var typicalChunks, chunksInPlace = func() ([]byte, []byte) {
	var b []byte
	for range 4 {
		b = fmt.Appendf(b, "%x\r\n%s\r\n", 4<<10, bytes.Repeat([]byte("x"), 4<<10))
	}
	b = append(b, "0\r\n\r\n"...)
	return b, bytes.Clone(b)
}()

func parseRequest(tb testing.TB, r *http1.Request) {
	if n, err := r.Parse(typicalRequest, 64<<10); n != len(typicalRequest) || err != nil {
		tb.Fatal(n, err)
	}
}

func parseResponse(tb testing.TB, r *http1.Response) {
	if n, err := r.Parse(typicalResponse, 64<<10); n != len(typicalResponse) || err != nil {
		tb.Fatal(n, err)
	}
}

func decodeChunks(tb testing.TB, start http1.Body, in []byte) {
	body := start
	if _, used, err := body.Decode(in); used != len(in) || err != nil || !body.Done() {
		tb.Fatal(used, err)
	}
}

func BenchmarkRequestHead(b *testing.B) {
	var r http1.Request
	b.ReportAllocs()
	b.SetBytes(int64(len(typicalRequest)))
	for b.Loop() {
		parseRequest(b, &r)
	}
}

func BenchmarkRequestHeadThroughAProxy(b *testing.B) {
	var r http1.Request
	var out []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(typicalRequest)))
	for b.Loop() {
		parseRequest(b, &r)
		r.Drop(1 << http1.Connection)
		out = r.AppendFields(out[:0])
	}
}

func BenchmarkResponseHead(b *testing.B) {
	var r http1.Response
	b.ReportAllocs()
	b.SetBytes(int64(len(typicalResponse)))
	for b.Loop() {
		parseResponse(b, &r)
	}
}

func BenchmarkChunked(b *testing.B) {
	start := chunkedBody(b, false)
	b.ReportAllocs()
	b.SetBytes(int64(len(typicalChunks)))
	for b.Loop() {
		decodeChunks(b, start, typicalChunks) // passed on as it came: it stays as it is
	}
}

func BenchmarkChunkedUnwrapped(b *testing.B) {
	start := chunkedBody(b, true)
	b.ReportAllocs()
	b.SetBytes(int64(len(typicalChunks)))
	for b.Loop() {
		copy(chunksInPlace, typicalChunks)
		decodeChunks(b, start, chunksInPlace)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var req http1.Request
	var resp http1.Response
	var out []byte
	kept, bare := chunkedBody(t, false), chunkedBody(t, true)
	folded := []byte("HTTP/1.1 200 OK\nA : b\n c\nContent-Length: 05\nConnection: x, a, close\n\n")
	head := make([]byte, len(folded))
	bad := []byte(get("Content-Length: x\r\n"))
	for name, f := range map[string]func(){
		"request": func() { parseRequest(t, &req); out = emittedInto(out[:0], &req) },
		"response": func() {
			parseResponse(t, &resp)
			resp.KeepAliveHint()
			out = resp.AppendFields(resp.AppendLine(out[:0]))
		},
		"request in two parts": func() {
			if _, err := req.Parse(typicalRequest[:200], 64<<10); err != http1.ErrIncomplete {
				t.Fatal(err)
			}
			parseRequest(t, &req)
		},
		"normalised response": func() {
			copy(head, folded)
			if _, err := resp.Parse(head, 64<<10); err != nil {
				t.Fatal(err)
			}
			out = resp.AppendFields(resp.AppendLine(out[:0]))
		},
		"odd response": func() {
			head = append(head[:0], oddResponse...)
			if _, err := resp.Parse(head, 64<<10); err != nil || !resp.Suspect {
				t.Fatal(err)
			}
			if timeout, max := resp.KeepAliveHint(); timeout != 2 || max != 7 {
				t.Fatal(timeout, max)
			}
			out = resp.AppendFields(resp.AppendLine(out[:0]))
		},
		"refusal": func() {
			if _, err := req.Parse(bad, 64<<10); err == nil {
				t.Fatal("accepted")
			}
		},
		"chunked":           func() { decodeChunks(t, kept, typicalChunks) },
		"chunked unwrapped": func() { copy(chunksInPlace, typicalChunks); decodeChunks(t, bare, chunksInPlace) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

const oddResponse = "HTTP/2  200\tO\x01K\r\n first line\r\nX: a\x1bb\r\nno colon\r\n folded\r\nKeep-Alive: timeout=2s; max=9\r\n" +
	"Keep-Alive: max = 7\r\nContent-Length: 5, 05\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nConnection: close;, x\r\n\r\n"

// emittedInto writes a request head into memory that is there.
func emittedInto(dst []byte, r *http1.Request) []byte {
	r.Drop(1 << http1.Connection)
	dst = append(append(dst, r.Method...), ' ')
	dst = append(append(dst, r.Target...), " HTTP/1.1\r\n"...)
	return append(r.AppendFields(dst), "\r\n"...)
}
