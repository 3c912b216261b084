package proxy

import (
	"errors"
	"fmt"
)

// panicked is a panic on a goroutine that works for a session. It becomes the
// session's own, which ends by it as by any other.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprint("panic: ", p.value) }

// catch, deferred, turns a panic into the error that a function returns.
func catch(err *error) {
	if r := recover(); r != nil {
		*err = &panicked{r}
	}
}

func isPanic(err error) bool {
	var p *panicked
	return errors.As(err, &p)
}

// rethrow is called by the session when its goroutines have ended by err, which
// may be nil.
func rethrow(err error) {
	var p *panicked
	if errors.As(err, &p) {
		panic(p.value)
	}
}

// caught counts a panic and tells of it.
func (p *Proxy) caught(where string, r any) {
	p.panics.Add(1)
	p.cfg.Fault("panic in "+where, fmt.Errorf("%v", r))
}

// contain is deferred by what is done for all sessions: a panic there costs the
// turn, not the process. One under a lock leaves it locked: then Lag tells.
func (p *Proxy) contain(where string) {
	if r := recover(); r != nil {
		p.caught(where, r)
	}
}
