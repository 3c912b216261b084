package proxy_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

const speechLimit = 1 << 10

// firstWords are what clients begin their tunnels with, and what that is.
var firstWords = map[string]string{
	"GET / HTTP/1.1\r\n":                       "HTTP",
	"GET / HTTP/1.0\r\n":                       "HTTP",
	"GET /a?b HTTP/1.":                         "HTTP",
	"OPTIONS * HTTP/1.1\r\n":                   "HTTP",
	"VERSION-CONTROL /x HTTP/1.1\r\n":          "HTTP",
	"GET /" + strings.Repeat("a", speechLimit): "HTTP",
	"GET /" + strings.Repeat("a", 900):         "",
	"":                                         "",
	"G":                                        "",
	"GET":                                      "",
	"GET ":                                     "",
	"GET /a":                                   "",
	"OPTIONS *":                                "",
	"PATCH / HTTP/":                            "",
	"GET * HTTP/1.1\r\n":                       "other",
	"OPTIONS *x HTTP/1.1\r\n":                  "other",
	"GET / HTTP/2":                             "other",
	"GET /\r\n":                                "other",
	"GET / \r\n":                               "other",
	"GET  / HTTP/1.1\r\n":                      "other",
	"GET\t/ HTTP/1.1\r\n":                      "other",
	"GET http":                                 "other",
	"CONNECT":                                  "other",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":         "other",
	"GETX":                                     "other",
	"get / HTTP/1.1":                           "other",
	"PING":                                     "other",
	"\r\nGET / HTTP/1.1\r\n":                   "other",
	"\x16\x03\x01":                             "other",
	"\x00":                                     "other",
	"GET /\x7f HTTP/1.1":                       "other",
	"SSH-2.0-x\r\n":                            "other",
	"EHLO x\r\n":                               "other",
	"*1\r\n$4\r\nPING\r\n":                     "other",
	"AMQP\x00\x00\x09\x01":                     "other",
	"PUT" + strings.Repeat("T", 2*speechLimit):   "other",
	"REPORT rtsp://camera/ RTSP/1.0\r\n":         "other",
	"GET /" + strings.Repeat("\x00", 10) + " HT": "other",
}

func TestC8WhatTheFirstBytesShow(t *testing.T) {
	for b, want := range firstWords {
		if got := proxy.SpeechOf([]byte(b), speechLimit); got != want {
			t.Errorf("%.60q is %q, want %q", b, got, want)
		}
	}
}

// What is found never changes when more comes; and what is found to be HTTP is a
// request line, however little the parser may like the rest of it.
func FuzzFirstBytesInATunnel(f *testing.F) {
	for b := range firstWords {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), speechLimit)]
		found := ""
		for n := range len(b) + 1 {
			got := proxy.SpeechOf(b[:n:n], speechLimit)
			if found != "" && got != found {
				t.Fatalf("%q is %q, and with more %q", b[:n], found, got)
			}
			found = got
		}
		if n := len(b); found == "" && n >= speechLimit {
			t.Fatalf("after %d bytes it is not clear what they are", n)
		}
		if found != "HTTP" {
			return
		}
		var r http1.Request
		i := strings.Index(string(b), " HTTP/1.")
		switch {
		case i < 0 && len(b) == speechLimit: // it goes on too long
			return
		case i < 0:
			t.Fatalf("%q is no request line", b)
		}
		line := append(b[:i:i], " HTTP/1.1\r\nHost: x\r\n\r\n"...)
		if _, err := r.Parse(line, 4*speechLimit); err != nil {
			t.Fatalf("%q does not begin a request: %v", b, err)
		}
	})
}
