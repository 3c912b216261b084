package load

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

func fill(url, host string) string { return strings.ReplaceAll(url, "{host}", host) }

// begin judges the beginning of an answer, which has to carry the id: how many bytes the beginning has, how many follow
// it, and whether the connection ends with it. used is 0 while the beginning is not whole.
func (t Turn) begin(b, id []byte) (used, left int, last bool, err error) {
	if !t.Connect && t.URL == "" {
		if len(b) < wire.IDLen {
			return 0, 0, false, nil
		}
		if !bytes.Equal(b[:wire.IDLen], id) {
			return 0, 0, false, fmt.Errorf("another id")
		}
		return wire.IDLen, t.Down - wire.IDLen, false, nil
	}
	a, whole, err := wire.ReadAnswer(b)
	switch {
	case err != nil:
		return 0, 0, false, err
	case !whole:
		return 0, 0, false, nil
	case a.Status != 200:
		return 0, 0, false, fmt.Errorf("status %d", a.Status)
	case t.Connect:
		return a.Head, 0, false, nil // no body follows (RFC 9110, 9.3.6)
	case a.Body != t.Want:
		return 0, 0, false, fmt.Errorf("a body of %d bytes", a.Body)
	}
	const upTo = wire.IDOffset + wire.IDLen
	body := b[a.Head:]
	if len(body) < upTo {
		return 0, 0, false, nil
	}
	if !bytes.Equal(body[wire.IDOffset:upTo], id) {
		return 0, 0, false, fmt.Errorf("another id")
	}
	return a.Head + upTo, a.Body - upTo, a.Last, nil
}
