package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startTimeout is how long a server may take until it answers.
	startTimeout = 15 * time.Second
	// clientTimeout is how long a client program may run: 300 calls take a
	// second or two, so it is reached only by a hanging one.
	clientTimeout = 60 * time.Second
	// pollInterval is the pause between two looks at something awaited.
	pollInterval = 10 * time.Millisecond
)

// A process is a server that runs until the test that started it ends.
type process struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr lockedBuffer
	exited         chan struct{} // closed once err is set
	err            error         // what Wait returned
}

// startProcess starts a server. It is killed at the end of the test unless it
// has exited by then, and if the test failed its stderr is shown.
func startProcess(t *testing.T, env []string, argv ...string) *process {
	t.Helper()
	p := &process{cmd: command(context.Background(), env, argv...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	name := filepath.Base(argv[0])
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its workers, too
			<-p.exited
		}
		if t.Failed() {
			t.Logf("stderr of %s:\n%s", name, p.stderr.tail(8<<10))
		}
	})
	return p
}

// await polls ready until it returns nil, the process exits or startTimeout
// has passed.
func (p *process) await(ready func() error) error { return p.awaitFor(startTimeout, ready) }

// awaitFor is await with a time limit of its own.
func (p *process) awaitFor(limit time.Duration, ready func() error) error {
	deadline := time.After(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("exited: %v: %s", p.err, p.stderr.tail(1<<10))
		case <-deadline:
			return fmt.Errorf("not ready after %v: %w", limit, err)
		case <-time.After(pollInterval):
		}
	}
}

// stop sends SIGTERM and returns an error unless the process then exits with
// status 0.
func (p *process) stop(within time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return p.err
	case <-time.After(within):
		return fmt.Errorf("still running %v after SIGTERM", within)
	}
}

// runProgram runs a program to its end and returns what it wrote.
func runProgram(timeout time.Duration, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout,
		fmt.Errorf("still running after %v", timeout))
	defer cancel()
	out, err := command(ctx, env, argv...).CombinedOutput()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return string(out), err
}

// command is a command in a process group of its own, all of which is killed
// when ctx ends. It does not outlive the tests: see dieWithParent.
func command(ctx context.Context, env []string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = env
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// A lockedBuffer is a bytes.Buffer written by one goroutine while another
// reads it.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// nextJSON decodes the next line into v, and returns an error while there is
// no whole line.
func (b *lockedBuffer) nextJSON(v any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := bytes.IndexByte(b.buf.Bytes(), '\n')
	if end < 0 {
		return errors.New("nothing printed yet")
	}
	return json.Unmarshal(b.buf.Next(end+1), v)
}

// skipLine drops the next line, and returns an error while there is none.
func (b *lockedBuffer) skipLine() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := bytes.IndexByte(b.buf.Bytes(), '\n')
	if end < 0 {
		return errors.New("nothing printed yet")
	}
	b.buf.Next(end + 1)
	return nil
}

// tail returns at most the last n bytes.
func (b *lockedBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.buf.Bytes()
	return string(all[max(0, len(all)-n):])
}

var usedPorts sync.Map // of int: ports that freePort has handed out

// freePort returns a free port of 127.0.0.1, for servers that cannot tell
// which one the kernel gave them. It lies below the ephemeral ports of Linux:
// among those, one of the thousands of connections made here would take it
// between this look and the server's own.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10240 + rand.IntN(32768-10240)
		if _, used := usedPorts.LoadOrStore(port, true); used {
			continue
		}
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// tempDir is t.TempDir with a path short enough for unix sockets in it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "carpool-clients-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
