package upstream_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/ci/compare/internal/load"
	"github.com/carpoolproxy/carpool/ci/compare/internal/upstream"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// The upstream is an event loop that holds its processor, so it is a process of its own, here as in the comparison.
func TestMain(m *testing.M) {
	if at := os.Getenv("UPSTREAM_AT"); at != "" {
		err := upstream.Plain(netip.MustParseAddrPort(at), func() { os.Stdout.WriteString("ready\n") })
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func start(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UPSTREAM_AT="+at)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return netip.MustParseAddrPort(at)
}

func TestLoadAndUpstreamUnderstandEachOther(t *testing.T) {
	at := start(t)
	host := []string{at.String()}
	asked := 0
	for name, c := range map[string]load.Spec{
		"kept":       {Turns: []load.Turn{{URL: "/items", Want: 64}}},
		"closing":    {Turns: []load.Turn{{URL: "/items", Want: 64}}, End: load.ByServer},
		"a long one": {Turns: []load.Turn{{URL: "/size/65536", Want: 65536}}},
		"a body":     {Turns: []load.Turn{{URL: "/items", Body: 10240, Want: 64}}},
		"a tunnel":   {Open: []load.Turn{{Connect: true}}, Turns: []load.Turn{{Up: 60, Down: 1 << 20}}},
		"each in a tunnel": {Turns: []load.Turn{{Connect: true}, {Up: 517, Down: 3000}, {Up: 300, Down: 500}},
			End: load.ByClient},
		"HTTP in a tunnel": {Open: []load.Turn{{Connect: true}}, Turns: []load.Turn{{URL: "/items", Want: 64}}},
	} {
		c.Proxy, c.Hosts = at, host
		g, err := load.New(c)
		if err != nil {
			t.Fatal(err)
		}
		r, err := g.Do(load.Command{Clients: 3, AtLeast: 30})
		if err != nil || r.Done < 30 || r.Failed() > 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		asked += r.Done
		if name == "each in a tunnel" {
			asked += r.Done // two messages each
		}
	}
	response, err := http.Get("http://" + at.String() + "/counts")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var counts upstream.Counts
	if err := json.NewDecoder(response.Body).Decode(&counts); err != nil || counts.Requests != int64(asked) {
		t.Errorf("%+v, %v; %d were asked for", counts, err, asked)
	}
}

func TestARequestMayComeInPieces(t *testing.T) {
	c, err := net.Dial("tcp", start(t).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	text := string(wire.Request("/items", "h", 5, false).Bytes)
	head := strings.Index(text, "\r\n\r\n") + 4
	for _, cut := range []int{1, 20, head - 1, head, head + 2} {
		for _, part := range []string{text[:cut], text[cut:]} {
			if _, err := io.WriteString(c, part); err != nil {
				t.Fatal(err)
			}
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil || response.ContentLength != 64 {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Fatal(err)
		}
	}
}
