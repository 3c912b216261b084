// Package hot remembers over a restart which upstreams needed most connections, so
// that a restarted carpool has some to them before the first requests come. The
// memory is a small file. Whatever is wrong with it costs a log line: without it
// carpool begins as it would without a memory.
package hot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/pool"
)

// Name is what the file is called.
const Name = "carpool-hot.json"

const (
	version = 1
	// maxOrigins is how many upstreams are remembered, maxEach and maxConns how many
	// connections to one and to all of them.
	maxOrigins = 32
	maxEach    = 16
	maxConns   = 64
	maxSize    = 64 << 10 // of the file
	// every is how often the file is written, if it changes.
	every = time.Minute
	// keepFor is how long an upstream stays in the file that is used no more: the app
	// may be restarting too, or quiet.
	keepFor = 10 * time.Minute
	// lastWait bounds the wait for the last write.
	lastWait = 2 * time.Second
)

// file is what is in the file: origins only, no paths and nothing of any request.
type file struct {
	Version int     `json:"version"`
	Origins []entry `json:"origins"`
}

type entry struct {
	Origin config.Origin `json:"origin"`
	Conns  int           `json:"conns"`
}

// seen is an entry with the time when the pool last named it.
type seen struct {
	entry
	at time.Time
}

// Pool is the part of a pool.Pool that is needed.
type Pool interface {
	Hottest(most int) []pool.Warmth
	Prime(ctx context.Context, list []pool.Warmth)
}

// Memory keeps the file up to date. Its methods are for one goroutine.
type Memory struct {
	path    string
	pool    Pool
	log     *zap.Logger
	stop    context.CancelFunc
	stopped chan struct{}

	// The rest is the goroutine's.
	seen    []seen // the hottest first, then those that were
	written []byte
	failing bool // and a line says so
}

// Keep reads the file in a directory, opens connections to the upstreams that it
// names, in the background, and keeps it up to date until Close.
func Keep(dir string, p Pool, log *zap.Logger) *Memory {
	ctx, stop := context.WithCancel(context.Background())
	m := &Memory{path: filepath.Join(dir, Name), pool: p, log: log, stop: stop, stopped: make(chan struct{})}
	go func() {
		defer close(m.stopped)
		m.run(ctx)
	}()
	return m
}

// Close writes the file for the last time. It does not wait long for a disk that
// does not answer.
func (m *Memory) Close() {
	m.stop()
	select {
	case <-m.stopped:
	case <-time.After(lastWait):
		m.log.Warn("the directory for what is remembered does not answer", zap.String("file", m.path))
	}
}

func (m *Memory) run(ctx context.Context) {
	m.recall(ctx)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		m.save()
	}
}

// recall opens connections to what the file names.
func (m *Memory) recall(ctx context.Context) {
	old, err := read(m.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		m.log.Warn("what was remembered of upstreams cannot be used: carpool starts without it", zap.String("file", m.path), zap.Error(err))
		return
	}
	var list []pool.Warmth
	for _, e := range old {
		m.seen = append(m.seen, seen{e, time.Now()})
		list = append(list, pool.Warmth{Key: pool.Key(e.Origin), Conns: e.Conns})
	}
	m.pool.Prime(ctx, list)
}

// save writes the file if it changes. One log line tells of failures until it
// works again.
func (m *Memory) save() {
	text, err := json.Marshal(file{version, m.entries()})
	if err != nil {
		panic("bug: " + err.Error())
	}
	if bytes.Equal(text, m.written) {
		return
	}
	if err = write(m.path, text); err == nil {
		m.written, m.failing = text, false
		return
	}
	if !m.failing {
		m.log.Warn("upstreams are not remembered: a restart begins without connections", zap.String("file", m.path), zap.Error(err))
	}
	m.failing = true
}

// entries is what is to be remembered now.
func (m *Memory) entries() []entry {
	now := time.Now()
	var hot []seen
	for _, w := range m.pool.Hottest(maxOrigins) {
		hot = append(hot, seen{entry{config.Origin(w.Key), w.Conns}, now})
	}
	for _, s := range m.seen {
		if now.Sub(s.at) < keepFor && !slices.ContainsFunc(hot, func(h seen) bool { return h.Origin == s.Origin }) {
			hot = append(hot, s)
		}
	}
	m.seen = hot[:min(len(hot), maxOrigins)]
	list, left := []entry{}, maxConns
	for _, s := range m.seen {
		s.Conns = min(s.Conns, maxEach, left)
		if left -= s.Conns; s.Conns > 0 {
			list = append(list, s.entry)
		}
	}
	return list
}

// read returns what the file says. Anything that this package would not have
// written is an error.
func read(path string) ([]entry, error) {
	st, err := os.Lstat(path) // to open a pipe might wait for ever
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxSize {
		return nil, fmt.Errorf("want a file of at most %d bytes, not %v of %d", maxSize, st.Mode(), st.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var content file
	d := json.NewDecoder(io.LimitReader(f, maxSize))
	d.DisallowUnknownFields()
	if err := d.Decode(&content); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("want one JSON object")
	}
	return content.Origins, content.check()
}

// check tells what a file does not say that this package has written.
func (c *file) check() error {
	if c.Version != version {
		return fmt.Errorf("want version %d, not %d", version, c.Version)
	}
	sum := 0
	for _, e := range c.Origins {
		if e.Origin.Port == 0 || e.Conns < 1 || e.Conns > maxEach {
			return fmt.Errorf("want an origin and from 1 to %d connections, not %v and %d", maxEach, e.Origin, e.Conns)
		}
		sum += e.Conns
	}
	if len(c.Origins) > maxOrigins || sum > maxConns {
		return fmt.Errorf("want at most %d origins and %d connections, not %d and %d", maxOrigins, maxConns, len(c.Origins), sum)
	}
	return nil
}

// write replaces the file. Whoever reads it finds it whole: as it was, or as it is.
func write(path string, text []byte) error {
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a carpool that was killed
		return err
	}
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		_ = os.Remove(next)
	}
	return err
}
