package wire_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

const id = "00000000deadbeef"

func withID(t wire.Text) []byte {
	wire.PutID(t.Bytes[t.ID:], 0xdeadbeef)
	return t.Bytes
}

func TestWhatIsAskedIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		text []byte
		want wire.Asked
	}{
		"a small answer": {withID(wire.Request("http://h/items", "h", 0, false)), wire.Asked{Size: 64}},
		"a long one":     {withID(wire.Request("/size/65536", "h", 0, true)), wire.Asked{Size: 65536, Last: true}},
		"a body":         {withID(wire.Request("/", "h", 10240, false)), wire.Asked{Size: 64, Body: 10240}},
		"bytes":          {withID(wire.Message(517, 3000)), wire.Asked{Kind: wire.Bytes, Body: 517 - wire.MessageHead, Size: 3000}},
		"a tunnel":       {wire.Connect("h:1").Bytes, wire.Asked{Kind: wire.Tunnel, Size: 64}},
	} {
		for cut := 1; cut < len(c.text)-c.want.Body; cut++ {
			if _, ok, err := wire.Read(c.text[:cut]); ok || err != nil {
				t.Fatalf("%s: %d bytes are read as a head, or %v", name, cut, err)
			}
		}
		got, ok, err := wire.Read(c.text)
		if !ok || err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Head+got.Body != len(c.text) {
			t.Errorf("%s: head of %d and body of %d are not its %d bytes", name, got.Head, got.Body, len(c.text))
		}
		if c.want.Kind != wire.Tunnel && string(got.ID) != id {
			t.Errorf("%s: id %q", name, got.ID)
		}
		if got.Kind != c.want.Kind || got.Body != c.want.Body || got.Size != c.want.Size || got.Last != c.want.Last {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestFieldNamesInLowerCaseAreRead(t *testing.T) {
	got, ok, err := wire.Read([]byte("POST / HTTP/1.1\r\nx-request-id: " + id + "\r\ncontent-length:7\r\nconnection: close\r\n\r\n"))
	if !ok || err != nil || string(got.ID) != id || got.Body != 7 || !got.Last {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatCannotBeAnsweredIsAnError(t *testing.T) {
	for _, bad := range []string{
		"GET /size/3 HTTP/1.1\r\n\r\n", "GET /size/x HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
		strings.Repeat("x", 9<<10), "\x16\x03\x01zzzzzzzz00000010" + id,
	} {
		if _, ok, err := wire.Read([]byte(bad)); ok || err == nil {
			t.Errorf("%.40q: %t, %v", bad, ok, err)
		}
	}
}

func TestAnswersCarryTheIDAndTheirLength(t *testing.T) {
	for _, size := range []int{64, 65536} {
		b, follow := wire.AppendAnswer(nil, wire.Asked{Size: size, ID: []byte(id), Last: true})
		a, ok, err := wire.ReadAnswer(b)
		if !ok || err != nil || a.Status != 200 || a.Body != size || !a.Last {
			t.Fatalf("%+v, %t, %v", a, ok, err)
		}
		if len(b)-a.Head+follow != size {
			t.Errorf("%d + %d bytes of body, not %d", len(b)-a.Head, follow, size)
		}
		if got := string(b[a.Head+wire.IDOffset:][:wire.IDLen]); got != id {
			t.Errorf("id %q", got)
		}
	}
	b, follow := wire.AppendAnswer(nil, wire.Asked{Kind: wire.Bytes, Size: 3000, ID: []byte(id)})
	if string(b) != id || follow != 3000-wire.IDLen {
		t.Errorf("%q and %d", b, follow)
	}
}

func TestAnswersThatAreOddAreErrorsOrNotWhole(t *testing.T) {
	for _, part := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"} {
		if _, ok, err := wire.ReadAnswer([]byte(part)); ok || err != nil {
			t.Errorf("%q: %t, %v", part, ok, err)
		}
	}
	for _, bad := range []string{"HTTP/1.1 2x0 OK\r\n\r\n", "garbage of some length\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"} {
		if _, ok, err := wire.ReadAnswer([]byte(bad)); ok || err == nil {
			t.Errorf("%q: %t, %v", bad, ok, err)
		}
	}
	a, ok, err := wire.ReadAnswer([]byte("HTTP/1.0 502 Bad Gateway\r\n\r\n"))
	if !ok || err != nil || a.Status != 502 || a.Body != -1 || !a.Last {
		t.Errorf("%+v, %t, %v", a, ok, err)
	}
}
