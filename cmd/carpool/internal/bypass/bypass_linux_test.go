package bypass

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest/netns"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/sockdiag"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// namespace runs the test in a network namespace of its own, as a pod has one, and reports whether this is there.
func namespace(t *testing.T) bool {
	t.Helper()
	return netns.Own(t)
}

// peer is another process of the pod, which does nothing but have these sockets open. They are its alone then.
func peer(t *testing.T, files ...*os.File) {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	for _, f := range files {
		_ = f.Close()
	}
}

// open makes a connection, which ends with the test.
func open(t *testing.T, from, to string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// away takes a connection out of this process.
func away(t *testing.T, c *net.TCPConn) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// listen serves nobody: connections stay in the queue.
func listen(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// look looks now.
func look(t *testing.T, ports ...uint16) Snapshot {
	t.Helper()
	s := New(ports, nil).Snapshot()
	if s.Err != nil {
		t.Fatal(s.Err)
	}
	return s
}

func TestConnectionsOfOthersAreCountedAndOwnAreNot(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	listen(t, "10.1.0.2:8080")
	listen(t, "[fd00::2]:80")
	listen(t, "10.1.0.2:9000")
	open(t, "10.1.0.1:0", "10.1.0.2:8080") // carpool's own
	var files []*os.File
	for range 2 {
		files = append(files, away(t, open(t, "10.1.0.1:0", "10.1.0.2:8080")))
	}
	files = append(files,
		away(t, open(t, "[fd00::1]:0", "[fd00::2]:80")),
		away(t, open(t, "10.1.0.1:0", "10.1.0.2:9000"))) // no port of HTTP
	peer(t, files...)
	s := look(t, 8080, 80, 8080, 81)
	if want := []PortCount{{80, 1, 0}, {81, 0, 0}, {8080, 2, 0}}; !slices.Equal(s.Ports, want) {
		t.Errorf("counts are %v, want %v", s.Ports, want)
	}
	want := []Destination{{netip.MustParseAddrPort("10.1.0.2:8080"), 2, 0}, {netip.MustParseAddrPort("[fd00::2]:80"), 1, 0}}
	if !slices.Equal(s.Destinations, want) || s.Total() != 3 {
		t.Errorf("destinations are %v, %d in all, want %v", s.Destinations, s.Total(), want)
	}
}

// done opens connections that have ended when it returns: both ends are closed, that of the client first, or else that of
// the server.
func done(t *testing.T, from, to string, n int, clientFirst bool) {
	t.Helper()
	l, err := net.Listen("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for range n {
		client := open(t, from, to)
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		first, second := net.Conn(client), server
		if !clientFirst {
			first, second = second, first
		}
		_ = first.Close()
		if _, err := second.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		_ = second.Close()
	}
}

// An app that opens a connection for each request has none open most of the time. They leave a trace if it closes them.
func TestConnectionsThatHaveEndedAreCountedByWhereTheyLed(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	done(t, "10.1.0.1:0", "10.1.0.2:8080", 5, true)
	done(t, "[fd00::1]:0", "[fd00::2]:80", 3, true)
	done(t, "10.1.0.1:0", "10.1.0.2:9000", 2, true)   // no port of HTTP
	done(t, "127.0.0.1:0", "127.0.0.1:8080", 4, true) // to carpool, say
	done(t, "[::1]:0", "[::1]:8080", 4, true)
	done(t, "10.1.0.1:0", "10.1.0.1:8080", 4, true) // the pod itself
	done(t, "10.1.0.1:0", "10.1.0.2:81", 4, false)  // the server has closed first: they are its, and wait at its port
	for own, want := range map[uint64][]PortCount{
		0:   {{80, 0, 3}, {81, 0, 0}, {8080, 0, 5}},
		3:   {{80, 0, 0}, {81, 0, 0}, {8080, 0, 2}}, // which ones carpool has closed is not known
		100: {{80, 0, 0}, {81, 0, 0}, {8080, 0, 0}},
	} {
		ended := uint64(0)
		d := New([]uint16{80, 81, 8080}, func() uint64 { return ended })
		ended = own
		s := d.Snapshot()
		if s.Err != nil || !slices.Equal(s.Ports, want) {
			t.Errorf("carpool has closed %d: %v, %v, want %v", own, s.Ports, s.Err, want)
		}
		if s.Total() != 0 || s.Sockets.Outside != 10 || s.Sockets.TimeWait != 26 {
			t.Errorf("%d open, %d of %d in TIME_WAIT lead to other hosts, want 0 and 10 of 26", s.Total(), s.Sockets.Outside, s.Sockets.TimeWait)
		}
	}
	s := look(t, 8080)
	if want := []Destination{{netip.MustParseAddrPort("10.1.0.2:8080"), 0, 5}}; !slices.Equal(s.Destinations, want) || s.Ended() != 5 {
		t.Errorf("they led to %v, want %v", s.Destinations, want)
	}
}

func TestWhatCarpoolHasClosedLatelyIsNeverTooLittle(t *testing.T) {
	n := uint64(7) // from before the first look
	c := closes{total: func() uint64 { return n }}
	at := time.Unix(0, 0)
	look := func(later time.Duration, closed uint64) int {
		at, n = at.Add(later), n+closed
		return c.lately(at)
	}
	for i, step := range []struct {
		later  time.Duration
		closed uint64
		want   int
	}{
		{0, 0, 0},
		{time.Second, 5, 5},
		{30 * time.Second, 10, 15},
		{30 * time.Second, 1, 16},
		{2 * time.Second, 0, 11}, // the five are more than timeWait ago
		{31 * time.Second, 0, 1}, // and so are the ten
		{time.Hour, 100, 100},    // when in that hour is not known
		{timeWait, 0, 0},
	} {
		if got := look(step.later, step.closed); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	for range 1000 {
		look(time.Second, 1)
	}
	if len(c.seen) > 70 {
		t.Errorf("%d counts are kept", len(c.seen))
	}
}

// A socket of another user needs no comparison with the own ones.
func TestAnotherUserTellsASocketApart(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	if !mayChown(t) {
		t.Skip("there is no other user in this user namespace")
	}
	listen(t, "10.1.0.2:80")
	f := away(t, open(t, "10.1.0.1:0", "10.1.0.2:80"))
	if n := look(t, 80).Total(); n != 0 {
		t.Errorf("%d connections while the socket is this process'", n)
	}
	if err := f.Chown(4242, -1); err != nil {
		t.Fatal(err)
	}
	if n := look(t, 80).Total(); n != 1 {
		t.Errorf("%d connections when the socket is another user's", n)
	}
}

func mayChown(t *testing.T) bool {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Chown(4242, -1) == nil
}

func TestWhatCarpoolCouldNotCarryIsNotCounted(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	var files []*os.File
	add := func(from, to string) { files = append(files, away(t, open(t, from, to))) }
	listen(t, "127.0.0.1:80")
	listen(t, "10.1.0.1:80")
	listen(t, "[::1]:80")
	add("127.0.0.1:0", "127.0.0.1:80") // its own sidecar, or carpool itself
	add("[::1]:0", "[::1]:80")
	add("10.1.0.1:0", "10.1.0.1:80") // the same, by the pod's address
	// Requests to a server in the pod: 8080 is the local port, or even both are.
	listen(t, "10.1.0.2:8080")
	add("10.1.0.1:0", "10.1.0.2:8080")
	accepted := func(from string) {
		l, err := net.Listen("tcp", "10.1.0.2:8088")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		away(t, open(t, from, "10.1.0.2:8088"))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, away(t, c.(*net.TCPConn)))
	}
	accepted("10.1.0.1:81")
	peer(t, files...)
	s := look(t, 80, 81)
	if s.Total() != 0 {
		t.Errorf("counted %v, to %v", s.Ports, s.Destinations)
	}
	if n := look(t, 8080).Total(); n != 1 {
		t.Errorf("%d connections to port 8080, want the client's end alone", n)
	}
}

// A connection that nobody answers is one in the making.
func TestConnectingCounts(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Port: 80, Addr: [4]byte{10, 1, 0, 2}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	open(t, "10.1.0.1:0", "10.1.0.2:80") // fills the queue
	waiting, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(waiting), "connecting")
	defer f.Close()
	if err := syscall.Connect(waiting, &syscall.SockaddrInet4{Port: 80, Addr: [4]byte{10, 1, 0, 2}}); err != syscall.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	peer(t, f)
	if n := look(t, 80).Total(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestSocketFiguresAreThoseOfThePod(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	before := New(nil, nil).Snapshot()
	if !before.Sockets.Known || before.Sockets.TimeWait != 0 || before.Ports != nil {
		t.Fatalf("at first %+v", before)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40999"), 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "[fd00::2]:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := open(t, "[fd00::1]:0", "[fd00::2]:80")
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if s := New(nil, nil).Snapshot().Sockets; s.InUse != before.Sockets.InUse+3 || s.EphemeralPorts != 1000 {
		t.Errorf("a listener and a connection: %+v, before %+v", s, before.Sockets)
	}
	_ = c.Close()
	_ = other.Close()
	testkit.Eventually(t, "a closed connection is in TIME_WAIT", func() bool { return New(nil, nil).Snapshot().Sockets.TimeWait == 1 })
}

// TestManySockets says what a look costs, and that none is left out.
func TestManySockets(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	const pairs = 5000
	limit := syscall.Rlimit{Cur: 4 * pairs, Max: 4 * pairs}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Skipf("the test needs %d descriptors: %v", limit.Cur, err)
	}
	l, err := net.Listen("tcp", "10.1.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan error, 1)
	var ends []net.Conn
	go func() {
		for range pairs {
			c, err := l.Accept()
			if err != nil {
				accepted <- err
				return
			}
			ends = append(ends, c)
		}
		accepted <- nil
	}()
	for range pairs {
		open(t, "10.1.0.1:0", "10.1.0.2:80")
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	foreign := away(t, open(t, "10.1.0.1:0", "10.1.0.2:80"))
	peer(t, foreign)
	const looks = 10
	begin := processorTime(t)
	for range looks {
		if n := look(t, 80).Total(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	}
	t.Logf("%d own connections and %d sockets in all: a look takes %v of processor time", pairs, 2*pairs,
		(processorTime(t)-begin)/looks)
	own, err := dump([]uint16{80}...)
	if err != nil || len(own) != pairs+1 {
		t.Errorf("%d sockets pass the filter, %v, want %d", len(own), err, pairs+1)
	}
	all, err := dump()
	if err != nil || len(all) != 2*(pairs+1) {
		t.Errorf("%d sockets without it, %v, want %d", len(all), err, 2*(pairs+1))
	}
	for _, c := range ends {
		_ = c.Close()
	}
}

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// dump returns the open connections to these ports, or all.
func dump(ports ...uint16) ([]sockdiag.Socket, error) {
	q := sockdiag.Query{States: sockdiag.Bit(sockdiag.Established)}
	if len(ports) > 0 {
		q.Filter = sockdiag.PortFilter(ports)
	}
	return q.Dump()
}

// TestTheKernelFiltersByPort holds the filter to every combination of up to four ports.
func TestTheKernelFiltersByPort(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	ports := []uint16{1, 80, 81, 65535}
	for _, p := range ports {
		a := netip.AddrPortFrom(netip.MustParseAddr("10.1.0.2"), p).String()
		listen(t, a)
		open(t, "10.1.0.1:0", a)
	}
	for set := 1; set < 1<<len(ports); set++ {
		var want []uint16
		for i, p := range ports {
			if set>>i&1 == 1 {
				want = append(want, p)
			}
		}
		found, err := dump(want...)
		var got []uint16
		for _, c := range found {
			got = append(got, c.Dst.Port())
		}
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("asked for %v, got %v, %v", want, got, err)
		}
	}
	var many []uint16
	for p := range uint16(2000) {
		many = append(many, 2*p+2)
	}
	if found, err := dump(many...); err != nil || len(found) != 1 || found[0].Dst.Port() != 80 {
		t.Errorf("2000 ports: %v, %v", found, err)
	}
}

func TestAReportIsGivenOutAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := New([]uint16{80}, nil)
		first := d.Snapshot()
		if again := d.Snapshot(); again.Taken != first.Taken {
			t.Error("looked again at once")
		}
		time.Sleep(freshFor)
		if again := d.Snapshot(); time.Since(again.Taken) >= freshFor {
			t.Error("did not look again")
		}
	})
}
