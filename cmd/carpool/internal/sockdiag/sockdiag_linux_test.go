package sockdiag

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest/netns"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// recorded is what a kernel has said, of the files in testdata.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What was recorded: a client at 10.1.0.1 and a server have an open connection, one over IPv6 was closed by its client,
// and a third was refused.
func TestRecordedMessagesAreRead(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("the messages are those of a little-endian machine")
	}
	type seen struct {
		dst       string
		state     State
		connected bool
	}
	for name, want := range map[string][]seen{
		"open":      {{"10.1.0.2:80", Established, true}},
		"time-wait": {{"[fd00::2]:80", TimeWait, false}},
		"ended":     {{"[fd00::2]:80", Closed, true}},
		"refused":   {{"10.1.0.2:81", Closed, false}},
	} {
		found, _, err := parse(nil, recorded(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, w := range want {
			n := 0
			for _, s := range found {
				if s.Dst != netip.MustParseAddrPort(w.dst) || s.State != w.state {
					continue
				}
				n++
				if s.Connected != w.connected || s.Informed == s.Waiting || s.Waiting != (w.state == TimeWait) || s.Connected && s.RTT == 0 || s.Cookie == 0 {
					t.Errorf("%s: %+v, want %+v", name, s, w)
				}
			}
			if n != 1 {
				t.Errorf("%s: %+v is there %d times in %+v", name, w, n, found)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"open", "time-wait", "ended", "refused"} {
		f.Add(recorded(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		found, _, err := parse(nil, b)
		if err != nil && found != nil || len(found)*(msgSize+syscall.NLMSG_HDRLEN) > len(b) {
			t.Fatalf("%d sockets of %d bytes, %v", len(found), len(b), err)
		}
		for _, s := range found {
			if s.RTT < 0 || !s.Informed && (s.RTT != 0 || s.Connected) {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func TestTheEndOfEachConnectionIsTold(t *testing.T) {
	t.Parallel()
	if !netns.Own(t) {
		return
	}
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l, err := net.Listen("tcp", "10.1.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const connections = 50
	for range connections {
		client, err := net.Dial("tcp", "10.1.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = server.Close() // first: nothing of the client's is in TIME_WAIT
		_ = client.Close()
	}
	ended := map[uint64]bool{}
	testkit.Eventually(t, "each is told", func() bool {
		found, lost, err := w.Next(nil)
		if lost || err != nil {
			t.Fatal(lost, err)
		}
		for _, s := range found {
			if s.Dst.Port() == 80 && s.State == Closed && s.Connected {
				ended[s.Cookie] = true
			}
		}
		return len(ended) == connections
	})
}

func TestMessagesThatMakeNoSenseAreErrors(t *testing.T) {
	t.Parallel()
	for name, m := range map[string][]byte{
		"too short":      {4, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"too long":       {200, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"no socket":      {16, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"another kind":   {16, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"error, no code": {16, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if found, done, err := parse(nil, m); err == nil || done || found != nil {
			t.Errorf("%s: %v, %v, %v", name, found, done, err)
		}
	}
	refused := []byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff}
	if _, _, err := parse(nil, refused); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("an error of the kernel: %v", err)
	}
}
