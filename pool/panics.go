package pool

import "fmt"

// A panic on a goroutine of the pool's own costs what that goroutine was about,
// not the process. One under a lock leaves it locked: then Lag tells.

// caught counts a panic and tells of it. It returns it as an error.
func (p *Pool) caught(where string, r any) error {
	p.panics.Add(1)
	err := fmt.Errorf("%v", r)
	if p.cfg.Fault != nil {
		p.cfg.Fault("panic in "+where, err)
	}
	return err
}

// contain is deferred by goroutines whose work nobody waits for.
func (p *Pool) contain(where string) {
	if r := recover(); r != nil {
		_ = p.caught(where, r)
	}
}

// keepUp runs a loop until it returns by itself, anew after a panic.
func (p *Pool) keepUp(where string, loop func()) {
	for ended := false; !ended; {
		func() {
			defer p.contain(where)
			loop()
			ended = true
		}()
	}
}
