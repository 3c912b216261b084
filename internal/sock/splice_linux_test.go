package sock_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// splicer returns two connections that are to be spliced, and their peers: what from
// sends arrives at to.
func splicer(t *testing.T) (dst, src *sock.Conn, from, to *net.TCPConn) {
	t.Helper()
	src, from = acceptedQuiet(t)
	if err := src.Register(); err != nil {
		t.Fatal(err)
	}
	dst, to = dialled(t)
	return dst, src, from, to
}

type spliced struct {
	n   int64
	err error
}

func splice(dst, src *sock.Conn) <-chan spliced {
	return testkit.In(func() spliced {
		n, err := sock.Splice(dst, src, func() {})
		return spliced{n, err}
	})
}

func TestSpliceMovesAllToTheEnd(t *testing.T) {
	dst, src, from, to := splicer(t)
	bytes := noise(32 << 20)
	got := newDigest()
	ended := splice(dst, src)
	sent := testkit.In(func() error {
		_, err := from.Write(bytes)
		_ = from.CloseWrite()
		return err
	})
	for got.n < len(bytes)/2 { // slowly, so that it has to wait for the reader
		if _, err := io.CopyN(got, to, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.CopyN(got, to, int64(len(bytes)-got.n)); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	r := testkit.Await(t, "it ends", ended)
	if r.err != io.EOF || r.n != int64(len(bytes)) || !got.same(digestOf(bytes)) {
		t.Errorf("%d of %d bytes, %v", r.n, len(bytes), r.err)
	}
	noPipes(t)
}

// Small pieces are cheaper to copy.
func TestSpliceEndsWhereBytesAreFew(t *testing.T) {
	dst, src, from, to := splicer(t)
	ended := splice(dst, src)
	all := ""
	for {
		testkit.Write(t, from, "piece")
		testkit.Read(t, to, "piece")
		all += "piece"
		select {
		case r := <-ended:
			if r.err != nil || r.n != int64(len(all)) {
				t.Errorf("%d of %d bytes, %v", r.n, len(all), r.err)
			}
			noPipes(t)
			return
		default:
		}
		if len(all) > 1<<20 {
			t.Fatal("it does not end")
		}
	}
}

func TestSpliceIsInterrupted(t *testing.T) {
	for name, where := range map[string]func(t *testing.T, dst, src *sock.Conn, from *net.TCPConn){
		"reading": func(_ *testing.T, _, src *sock.Conn, _ *net.TCPConn) { src.Interrupt() },
		"writing": func(t *testing.T, dst, _ *sock.Conn, from *net.TCPConn) {
			testkit.In(func() error { _, err := from.Write(noise(64 << 20)); return err })
			parks := dst.Parks()
			testkit.Eventually(t, "it waits for the reader", func() bool { return dst.Parks() > parks })
			dst.Interrupt()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dst, src, from, _ := splicer(t)
			ended := splice(dst, src)
			where(t, dst, src, from)
			if r := testkit.Await(t, "it ends", ended); !errors.Is(r.err, os.ErrDeadlineExceeded) {
				t.Errorf("%v", r.err)
			}
			noPipes(t)
		})
	}
}

func TestSpliceSeesResets(t *testing.T) {
	dst, src, from, _ := splicer(t)
	ended := splice(dst, src)
	reset(t, from)
	if r := testkit.Await(t, "it ends", ended); r.err == nil || r.err == io.EOF {
		t.Errorf("%v", r.err)
	}
	dst, src, from, to := splicer(t)
	ended = splice(dst, src)
	reset(t, to)
	testkit.In(func() error { _, err := from.Write(noise(64 << 20)); return err })
	if r := testkit.Await(t, "it ends", ended); r.err == nil || r.err == io.EOF {
		t.Errorf("%v", r.err)
	}
	noPipes(t)
}

// More than there are pipes for are copied.
func TestSpliceWithoutAPipe(t *testing.T) {
	var stuck []<-chan spliced
	var ends []*sock.Conn
	for range sock.SpliceDescriptors / 2 {
		dst, src, from, _ := splicer(t)
		stuck, ends = append(stuck, splice(dst, src)), append(ends, dst)
		testkit.In(func() error { _, err := from.Write(noise(32 << 20)); return err })
		testkit.Eventually(t, "it waits for its reader", func() bool { return dst.Parks() > 0 })
	}
	dst, src, from, _ := splicer(t)
	testkit.Write(t, from, "x")
	if n, err := sock.Splice(dst, src, func() {}); n != 0 || err != sock.ErrNoSplice {
		t.Errorf("%d, %v", n, err)
	}
	_ = src.SetReadDeadline(time.Now().Add(testkit.Patience))
	testkit.Read(t, src, "x") // it is still there
	for i, dst := range ends {
		dst.Interrupt()
		<-stuck[i]
	}
	noPipes(t)
}

func noPipes(t *testing.T) {
	t.Helper()
	if n := sock.Pipes(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
}
