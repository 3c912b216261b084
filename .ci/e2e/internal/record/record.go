// Package record is what a load pod writes down of its calls, and what the
// tests read of it.
package record

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Seen is what one load pod has seen so far. All times are those at which
// requests were sent.
type Seen struct {
	Began  time.Time
	Calls  map[string]int     // by method
	Failed map[string]int     // by method
	Errors map[string]int     // by method and text; texts beyond the first 50 are "other"
	Pods   map[string]*Served // by the name that the upstream's pods answer with

	// Seconds has an element for each second of the clock since Began's.
	Seconds []Second
}

// Served is what one pod of the upstream answered.
type Served struct {
	First, Last time.Time
	Seconds     []int // like Seen.Seconds
}

// Second is what became of the requests that were sent in one second.
type Second struct {
	Calls, Failed int
	Slowest       time.Duration // of answers and errors
}

// Log collects what Seen has.
type Log struct {
	mu   sync.Mutex // guards seen; not held during I/O
	seen Seen
}

// NewLog returns a Log that begins at a time.
func NewLog(began time.Time) *Log {
	return &Log{seen: Seen{
		Began:  began,
		Calls:  make(map[string]int),
		Failed: make(map[string]int),
		Errors: make(map[string]int),
		Pods:   make(map[string]*Served),
	}}
}

// Note adds a call: who answered, or the text of the error if it failed.
func (l *Log) Note(method string, sent time.Time, took time.Duration, pod, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.seen
	n := s.index(sent)
	s.Seconds = grown(s.Seconds, n)
	second := &s.Seconds[n]
	second.Calls++
	second.Slowest = max(second.Slowest, took)
	s.Calls[method]++
	if failure != "" {
		second.Failed++
		s.Failed[method]++
		text := method + " " + failure
		if _, ok := s.Errors[text]; !ok && len(s.Errors) >= 50 {
			text = method + " other"
		}
		s.Errors[text]++
		return
	}
	p := s.Pods[pod]
	if p == nil {
		p = &Served{First: sent, Last: sent}
		s.Pods[pod] = p
	}
	if sent.Before(p.First) {
		p.First = sent
	}
	if sent.After(p.Last) {
		p.Last = sent
	}
	p.Seconds = grown(p.Seconds, n)
	p.Seconds[n]++
}

// Show calls f with what was seen. f must not keep it.
func (l *Log) Show(f func(*Seen)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.seen)
}

// index returns where in the slices a time is.
func (s *Seen) index(at time.Time) int {
	return int(at.Unix() - s.Began.Unix())
}

// grown returns a slice that has an element n.
func grown[T any](s []T, n int) []T {
	if n < len(s) {
		return s
	}
	return append(s, make([]T, n+1-len(s))...)
}

// between returns the whole seconds of a slice from one time until another,
// those that have begun by from left out.
func between[T any](s *Seen, values []T, from, to time.Time) []T {
	if from.Nanosecond() > 0 {
		from = from.Truncate(time.Second).Add(time.Second)
	}
	low := min(max(s.index(from), 0), len(values))
	high := min(max(s.index(to), low), len(values))
	return values[low:high]
}

// Group is what several load pods that do the same have seen.
type Group []Seen

// Window is what a group saw in some time.
type Window struct {
	Calls, Failed int
	Slowest       time.Duration
	Answers       map[string]int // by pod; pods that gave none are not in it
}

// Window adds up the seconds that lie between two times.
func (g Group) Window(from, to time.Time) Window {
	w := Window{Answers: make(map[string]int)}
	for i := range g {
		s := &g[i]
		for _, second := range between(s, s.Seconds, from, to) {
			w.Calls += second.Calls
			w.Failed += second.Failed
			w.Slowest = max(w.Slowest, second.Slowest)
		}
		for pod, served := range s.Pods {
			for _, n := range between(s, served.Seconds, from, to) {
				if n > 0 {
					w.Answers[pod] += n
				}
			}
		}
	}
	return w
}

// Share returns which part of the answers a pod gave, from 0 to 1.
func (w Window) Share(pod string) float64 {
	all := 0
	for _, n := range w.Answers {
		all += n
	}
	return float64(w.Answers[pod]) / float64(max(all, 1))
}

// First returns when a pod was first sent a request that it answered; zero if
// it never was.
func (g Group) First(pod string) time.Time {
	return g.extreme(pod, func(p *Served) time.Time { return p.First }, -1)
}

// Last returns when a pod was last sent a request that it answered; zero if it
// never was.
func (g Group) Last(pod string) time.Time {
	return g.extreme(pod, func(p *Served) time.Time { return p.Last }, +1)
}

func (g Group) extreme(pod string, of func(*Served) time.Time, sign int) time.Time {
	var times []time.Time
	for _, s := range g {
		if p := s.Pods[pod]; p != nil {
			times = append(times, of(p))
		}
	}
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MaxFunc(times, func(a, b time.Time) int { return sign * a.Compare(b) })
}

// Errors returns what failed and how often, the most frequent first.
func (g Group) Errors() []Error {
	sum := make(map[string]int)
	for _, s := range g {
		for text, n := range s.Errors {
			sum[text] += n
		}
	}
	var errs []Error
	for _, text := range slices.Sorted(maps.Keys(sum)) {
		errs = append(errs, Error{text, sum[text]})
	}
	slices.SortStableFunc(errs, func(a, b Error) int { return cmp.Compare(b.Times, a.Times) })
	return errs
}

// Error is a kind of failure: method and text.
type Error struct {
	Text  string
	Times int
}

// Counts returns the calls and the failed ones of a method.
func (g Group) Counts(method string) (calls, failed int) {
	for _, s := range g {
		calls += s.Calls[method]
		failed += s.Failed[method]
	}
	return calls, failed
}
