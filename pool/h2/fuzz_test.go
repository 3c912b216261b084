package h2_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool/h2"
)

// script is a peer that says what it was given, whatever it hears.
type script struct {
	net.Conn
	says *bytes.Reader
}

func (s script) Read(p []byte) (int, error)       { return s.says.Read(p) }
func (s script) ReadMore(p []byte) int            { return 0 }
func (s script) Write(p []byte) (int, error)      { return len(p), nil }
func (s script) SetDeadline(time.Time) error      { return nil }
func (s script) SetWriteDeadline(time.Time) error { return nil }

// FuzzPeer has a peer say anything. The connection then ends, and so does all that
// waits on it.
func FuzzPeer(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 7})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x88"), EndHeaders: true})
	_ = fr.WriteData(1, false, []byte("data"))
	_ = fr.WriteDataPadded(3, true, []byte("data"), make([]byte, 9))
	_ = fr.WriteWindowUpdate(0, 9)
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteRSTStream(3, 7)
	_ = fr.WriteGoAway(1, 0, nil)
	f.Add(b.Bytes())
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: []byte("\x88"), Priority: http2.PriorityParam{Weight: 1}})
	_ = fr.WriteContinuation(5, true, []byte("\x88"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, says []byte) {
		settings := []byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		e := &events{ended: make(chan struct{})}
		gate, open := io.Pipe()
		c := h2.New(h2.Config{
			Transport: sock.Over(joined{script{says: bytes.NewReader(says)}, io.MultiReader(bytes.NewReader(settings), gate)}),
			MaxHeader: 1 << 10, Events: e,
		})
		go c.Run()
		<-c.Ready()
		var all []*h2.Stream
		for range 3 {
			if s := c.Open(); s != nil {
				_, _ = s.Send(get, nil, true)
				all = append(all, s)
			}
		}
		_ = open.CloseWithError(errNow)
		for _, s := range all {
			for {
				if _, _, end, err := s.Head(); err != nil || end {
					break
				}
			}
			for {
				if _, end, err := s.Body(true); err != nil || end {
					break
				}
			}
			s.Close()
		}
		c.Close()
		<-e.ended
		if n := c.Lent(); n != 0 {
			t.Errorf("%d are lent", n)
		}
	})
}

var errNow = io.ErrNoProgress

// joined is a script of which the first part comes from elsewhere.
type joined struct {
	script
	first io.Reader
}

func (j joined) Read(p []byte) (int, error) {
	n, err := j.first.Read(p)
	if err == errNow {
		return j.script.Read(p)
	}
	return n, err
}
