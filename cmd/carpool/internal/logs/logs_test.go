package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

// reader is what log lines are written to. While it is shut, writing waits.
type reader struct {
	mu   sync.Mutex
	text bytes.Buffer
	err  error
	open chan struct{} // nil if never shut
}

func (r *reader) Write(p []byte) (int, error) {
	if r.open != nil {
		<-r.open
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	return r.text.Write(p)
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// lines returns the lines with this message, or all if it is empty.
func (r *reader) lines(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range bytes.Lines(r.text.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if message == "" || fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

func newLog(t *testing.T, to *reader, environ ...string) *Log {
	t.Helper()
	cfg, _, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	return New(cfg, to)
}

func TestX23WhatIsReadIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		l := newLog(t, out, "CARPOOL_ACCESS_LOG=all")
		const bursts, each = 100, 100
		for range bursts {
			for range each {
				l.Info(Request, zap.String("path", strings.Repeat("x", 100)))
			}
			synctest.Wait()
			time.Sleep(holdBack)
		}
		l.Info("the last")
		l.Close()
		if n := len(out.lines(t, Request)); n != bursts*each {
			t.Errorf("%d lines of %d", n, bursts*each)
		}
		if len(out.lines(t, "the last")) != 1 {
			t.Error("Close does not write what is there")
		}
		if unread, cut := l.Dropped(); unread+cut != 0 {
			t.Errorf("%d lines are said to be unread, %d cut", unread, cut)
		}
	})
}

func TestX23AFewLinesAreWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		l := newLog(t, out)
		defer l.Close()
		l.Info("serving")
		synctest.Wait()
		if len(out.lines(t, "serving")) != 1 {
			t.Error("it is held back")
		}
	})
}

// A full half is written without delay, so that a burst is not lost for the delay's sake.
func TestX23ManyLinesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		l := newLog(t, out, "CARPOOL_ACCESS_LOG=all")
		defer l.Close()
		for range queueSize / 2 / 1000 {
			l.Info(Request, zap.String("path", strings.Repeat("x", 1000)))
		}
		synctest.Wait()
		if len(out.lines(t, "")) == 0 {
			t.Error("they wait")
		}
	})
}

func TestX23LinesThatFindNoRoomAreCountedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{open: make(chan struct{})}
		l := newLog(t, out, "CARPOOL_ACCESS_LOG=all")
		const lines, each = 2000, 1000
		for range lines {
			l.Info(Request, zap.String("path", strings.Repeat("x", each)))
			synctest.Wait()
		}
		unread, _ := l.Dropped()
		if least := uint64(lines - 2*queueSize/each); unread < least {
			t.Errorf("%d lines are dropped, but %d do not fit", unread, least)
		}
		close(out.open)
		synctest.Wait()
		time.Sleep(holdBack) // what is told is a line like others
		l.Close()
		told := out.lines(t, "log lines were lost: what is written to stderr was not read in time")
		if len(told) != 1 || told[0]["count"] != float64(unread) {
			t.Errorf("of %d it says %v", unread, told)
		}
		if n := len(out.lines(t, Request)); n != lines-int(unread) {
			t.Errorf("%d lines are written, %d dropped, of %d", n, unread, lines)
		}
	})
}

func TestX23LinesThatCannotBeWrittenCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{err: errors.New("broken pipe")}
		l := newLog(t, out)
		for range 3 {
			l.Info("x")
		}
		synctest.Wait()
		if unread, _ := l.Dropped(); unread != 3 {
			t.Errorf("%d count", unread)
		}
		out.fail(nil)
		l.Info("y")
		l.Close()
		if told := out.lines(t, "log lines were lost: what is written to stderr was not read in time"); len(told) != 1 {
			t.Errorf("it says %v", told)
		}
	})
}

func TestX23CloseDoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{open: make(chan struct{})}
		l := newLog(t, out)
		l.Info("x")
		begin := time.Now()
		l.Close()
		if waited := time.Since(begin); waited != lastWait {
			t.Errorf("it waited for %v", waited)
		}
		close(out.open)
		synctest.Wait()
		l.Info("y")
		if unread, _ := l.Dropped(); unread != 1 || len(out.lines(t, "")) != 1 {
			t.Errorf("%d lines are dropped after Close", unread)
		}
	})
}

func TestX23AFloodIsAFewLinesASecondAndACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		l := newLog(t, out)
		const seconds, each = 3, 1000
		for range seconds {
			for range each {
				l.Warn(Request, zap.String("error", "connection_refused"))
			}
			l.Warn(Request, zap.String("error", "dns_error"))
			l.Info("another")
			time.Sleep(period)
			synctest.Wait()
		}
		for range few + 1 {
			l.Error("accept")
		}
		l.Close()
		if n := len(out.lines(t, Request)); n != seconds*(few+1) {
			t.Errorf("%d lines about requests", n)
		}
		if n := len(out.lines(t, "another")); n != seconds {
			t.Errorf("%d lines of another kind", n)
		}
		told := out.lines(t, "more lines like this were left out")
		if len(told) != seconds+1 {
			t.Fatalf("it says %v", told)
		}
		for _, line := range told[:seconds] {
			if line["of"] != Request || line["error"] != "connection_refused" || line["count"] != float64(each-few) {
				t.Errorf("it says %v", line)
			}
		}
		if last := told[seconds]; last["of"] != "accept" || last["count"] != 1.0 {
			t.Errorf("at the end it says %v", last)
		}
		if _, cut := l.Dropped(); cut != seconds*(each-few)+1 {
			t.Errorf("%d lines are cut", cut)
		}
	})
}

// What is left out of a kind is counted by origin, so that a flood of one hides no other; and there are only so many
// counts, for clients choose the hosts.
func TestX23WhatIsLeftOutIsCountedByOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		l := newLog(t, out)
		fail := func(origin string) {
			l.Warn(Request, zap.String("origin", origin), zap.String("error", "connection_refused"))
		}
		for range 100 {
			fail("http://flood:80")
		}
		fail("http://rare:80")
		time.Sleep(period)
		synctest.Wait()
		counts := func(told []map[string]any) map[string]float64 {
			all := map[string]float64{}
			for _, line := range told {
				if line["of"] != Request || line["error"] != "connection_refused" {
					t.Errorf("it says %v", line)
				}
				all[line["origin"].(string)] = line["count"].(float64)
			}
			return all
		}
		told := out.lines(t, "more lines like this were left out")
		if got := counts(told); len(got) != 2 || got["http://flood:80"] != 100-few || got["http://rare:80"] != 1 {
			t.Errorf("it says %v", got)
		}
		for i := range 1000 {
			fail(fmt.Sprintf("http://h%d:80", i))
		}
		l.Error("accept") // a kind of its own passes
		l.Close()
		got := counts(out.lines(t, "more lines like this were left out")[len(told):])
		if len(got) != most+1 || got[others] != 1000-few-most {
			t.Errorf("it says %v", got)
		}
		if len(out.lines(t, "accept")) != 1 {
			t.Error("another kind is left out")
		}
	})
}

func TestX23ALineForEachRequestIsWhatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		l := newLog(t, out, "CARPOOL_ACCESS_LOG=all")
		for range 10 * few {
			l.Warn(Request, zap.String("error", "connection_refused"))
			l.Error("accept")
		}
		l.Close()
		if requests, others := len(out.lines(t, Request)), len(out.lines(t, "accept")); requests != 10*few || others != few {
			t.Errorf("%d lines about requests, %d others", requests, others)
		}
	})
}

func TestO3WhatCannotBePrintedIsEncoded(t *testing.T) {
	for in, want := range map[string]string{
		"/orders/17":                             "/orders/17",
		"/Grüße/日本 x%20":                         "/Grüße/日本 x%20",
		"/a\x1b[31m":                             "/a%1B[31m",
		"\r\n\t\x00\x7f":                         "%0D%0A%09%00%7F",
		"C1 \u0085 \u009b31m":                    "C1 %C2%85 %C2%9B31m",
		"\u2028\u2029":                           "%E2%80%A8%E2%80%A9",
		"/\u202egnp.exe\u2066":                   "/%E2%80%AEgnp.exe%E2%81%A6",
		"\u200b\ufeff\u00ad":                     "%E2%80%8B%EF%BB%BF%C2%AD",
		"\u061c\u200e":                           "%D8%9C%E2%80%8E",
		"\U000e0041":                             "%F3%A0%81%81",
		"\xff\xc3(\xed\xa0\x80":                  "%FF%C3(%ED%A0%80",
		"\ufffd":                                 "\ufffd",
		strings.Repeat("é", 2000):                strings.Repeat("é", maxPath/2) + "…",
		"x" + strings.Repeat("é", 2000):          "x" + strings.Repeat("é", maxPath/2-1) + "…",
		strings.Repeat("\x80", 2000):             strings.Repeat("%80", maxPath-4) + "…",
		strings.Repeat("y", maxPath):             strings.Repeat("y", maxPath),
		strings.Repeat("y", maxPath) + "z\u202e": strings.Repeat("y", maxPath) + "…",
	} {
		if got := Path(in); got != want {
			t.Errorf("%.40q: %.80q, want %.80q", in, got, want)
		}
	}
	if got := Text(strings.Repeat("x", 5000)); len(got) != maxText+len("…") {
		t.Errorf("a text has %d bytes", len(got))
	}
}
