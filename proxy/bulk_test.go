package proxy_test

import (
	"crypto/sha256"
	"io"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// What goes through in bulk arrives whole and in order, both ways at once, with a few
// bytes before and behind it.
func TestC1TunnelsInBulk(t *testing.T) {
	t.Parallel()
	const size = 48 << 20
	want := sha256.New()
	_, _ = io.Copy(want, onlyReader{newNoise(size)})
	for kind, open := range dozers {
		t.Run("C1 "+kind, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			var sent []<-chan error
			var got []<-chan string
			for _, w := range [][2]*wire{{client, up}, {up, client}} {
				sent = append(sent, push(w[0], newNoise(size)))
				got = append(got, testkit.In(func() string {
					h := sha256.New()
					if err := w[1].drain(h, size); err != nil {
						return err.Error()
					}
					return string(h.Sum(nil))
				}))
			}
			for i := range sent {
				if err := <-sent[i]; err != nil {
					t.Error(err)
				}
				if s := <-got[i]; s != string(want.Sum(nil)) {
					t.Errorf("direction %d: other bytes have come: %q", i, s)
				}
			}
			client.send("ping")
			up.want("ping")
			up.send("pong")
			client.want("pong")
			client.shut()
			up.end()
			_ = up.Close()
			client.end()
			if rec := r.logged(1); rec.Sent < size+4 || rec.Received < size+4 {
				t.Errorf("logged %+v", rec)
			}
		})
	}
}
