package testkit

import (
	"io"
	"testing"
	"time"
)

// Patience is how long a test waits for what has to happen. Only a test that
// fails waits that long.
const Patience = 20 * time.Second

// Eventually asks holds again and again until it says true. It fails the test
// at once if that takes longer than Patience; what says in the message what did
// not happen. Call it from the goroutine of the test.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %s", Patience, what)
		}
	}
}

// Await returns what comes from ch. It fails the test at once if nothing comes
// within Patience. Call it from the goroutine of the test.
func Await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(Patience):
		t.Fatalf("not within %v: %s", Patience, what)
		panic("unreachable")
	}
}

// In runs f in a goroutine of its own and returns where its result comes. The
// goroutine ends with f, whether or not the result is taken.
func In[T any](f func() T) <-chan T {
	ch := make(chan T, 1)
	go func() { ch <- f() }()
	return ch
}

// Write writes all of s, or fails the test at once.
func Write(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(s), err)
	}
}

// Read reads as many bytes as want has, and fails the test at once if they are
// others.
func Read(t testing.TB, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); string(b) != want || err != nil {
		t.Fatalf("read %q (%v), want %q", b[:n], err, want)
	}
}
