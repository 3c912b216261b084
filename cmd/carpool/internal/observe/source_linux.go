package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/sockdiag"
)

// open returns the best source that there is: the kernel's word on each socket that ends, or looks by netlink, or by
// /proc where netlink is refused.
func open() (source, error) {
	q := sockdiag.Query{States: sockdiag.Any, Info: true}
	if _, err := q.Dump(); err != nil {
		if _, procErr := procSockets(); procErr != nil {
			return nil, fmt.Errorf("the sockets cannot be looked at: %w", errors.Join(err, procErr))
		}
		return &kernel{sockets: procSockets}, nil
	}
	k := &kernel{sockets: q.Dump}
	if w, err := sockdiag.NewWatch(); err == nil {
		k.listen(w)
	}
	return k, nil
}

// kernel is the source.
type kernel struct {
	sockets func() ([]sockdiag.Socket, error)

	told bool           // a goroutine listens
	stop chan struct{}  // closed to end it
	done sync.WaitGroup // until it has

	mu    sync.Mutex // guards what follows; nothing waits while it is held
	ended []sockdiag.Socket
	lost  bool // some since the last look were not told
}

// listen has the ends of sockets collected until close.
func (k *kernel) listen(w *sockdiag.Watch) {
	k.told, k.stop = true, make(chan struct{})
	k.done.Go(func() {
		defer w.Close()
		var part []sockdiag.Socket
		for {
			select {
			case <-k.stop:
				return
			default:
			}
			var lost bool
			var err error
			part, lost, err = w.Next(part[:0])
			k.mu.Lock()
			k.ended = append(k.ended, part...)
			k.lost = k.lost || lost || err != nil
			k.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

func (k *kernel) close() {
	if k.told {
		close(k.stop)
		k.done.Wait()
	}
}

func (k *kernel) look() (view, error) {
	sockets, err := k.sockets()
	if err != nil {
		return view{}, err
	}
	v := view{sockets: sockets, opened: connectionsOpened()}
	k.mu.Lock()
	defer k.mu.Unlock()
	v.ended, k.ended = k.ended, nil
	v.told = k.told && !k.lost
	return v, nil
}

// procSockets reads the sockets of both families. There may be no IPv6.
func procSockets() ([]sockdiag.Socket, error) {
	var all []sockdiag.Socket
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && all != nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		found, err := sockdiag.ParseProc(text)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// connectionsOpened is the kernel's count of both families, in this network namespace; -1 if it cannot be read.
func connectionsOpened() int {
	text, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return -1
	}
	return parseOpened(string(text))
}

// parseOpened reads two lines that begin with "Tcp:", one of names and one of numbers.
func parseOpened(snmp string) int {
	var names []string
	for line := range strings.Lines(snmp) {
		values, ok := strings.CutPrefix(line, "Tcp: ")
		if !ok {
			continue
		}
		if names == nil {
			names = strings.Fields(values)
			continue
		}
		figures := map[string]int{}
		for i, v := range strings.Fields(values) {
			if n, err := strconv.Atoi(v); err == nil && i < len(names) {
				figures[names[i]] = n
			}
		}
		opens, ok := figures["ActiveOpens"]
		if !ok {
			return -1
		}
		return opens - figures["AttemptFails"]
	}
	return -1
}
