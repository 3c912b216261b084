package proc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A Process is one that this program has started. It ends with this program, however that ends.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once it is gone
	said   tail
}

// A Start says how to start a process.
type Start struct {
	Argv []string
	Env  []string
	Dir  string
	CPUs Set // nil leaves it where this program may run
	// Wire prepares pipes; nil leaves stdin empty and keeps the end of what is written.
	Wire func(*exec.Cmd) error
}

// Begin starts a process in a process group of its own, so that a Ctrl-C at the terminal is this program's to handle.
func Begin(s Start) (*Process, error) {
	p := &Process{cmd: exec.Command(s.Argv[0], s.Argv[1:]...), exited: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = s.Env, s.Dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.WaitDelay = time.Second
	if s.Wire != nil {
		p.cmd.Stdout = nil
		if err := s.Wire(p.cmd); err != nil {
			return nil, err
		}
	}
	result := make(chan error)
	go p.run(s.CPUs, result)
	if err := <-result; err != nil {
		return nil, err
	}
	return p, nil
}

// run starts the process and waits for it, on one thread: the kernel ends the process when the thread that started it
// does, and CPUs are inherited from it.
func (p *Process) run(cpus Set, result chan<- error) {
	runtime.LockOSThread() // and ends with the goroutine, for its CPUs are nobody else's
	var err error
	if cpus != nil {
		err = cpus.pinThread()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	result <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // how it ended is told by what it said
	close(p.exited)
}

// PID returns its id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Alive says whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process and its group, and waits until it is gone.
func (p *Process) Kill() {
	if !p.Alive() {
		return
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // gone: it was to be
	<-p.exited
}

// Said returns the end of what the process wrote.
func (p *Process) Said() string { return p.said.String() }

// Failure returns an error that says what happened and what the process last wrote.
func (p *Process) Failure(what string) error {
	if said := p.Said(); said != "" {
		return fmt.Errorf("%s: %s", what, said)
	}
	return fmt.Errorf("%s", what)
}

// A tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const kept = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	t.buf = t.buf[max(0, len(t.buf)-kept):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
