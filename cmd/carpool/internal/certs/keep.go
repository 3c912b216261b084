package certs

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
)

// every is how often files are looked at. To look costs a few microseconds.
const every = time.Second

// Keeper keeps what is in files up to date. It is safe for concurrent use.
type Keeper struct {
	files Files
	log   *zap.Logger
	force *reading // what is in force; only Watch's goroutine changes it
	tried *reading // what was read last
	told  string   // what was wrong with that

	renewed, rejected atomic.Uint64
	stop              chan struct{}
	work              sync.WaitGroup
}

// Open reads the files. The error names all that are bad.
func Open(f Files) (*Keeper, error) {
	r, err := f.read(nil)
	if err != nil {
		return nil, err
	}
	return &Keeper{files: f, force: r, tried: r, stop: make(chan struct{})}, nil
}

// Set returns what the files held when they were opened.
func (k *Keeper) Set() Set { return k.force.set }

// Watch looks at the files from now on, until Close, and tells use of each new Set.
// What has not changed is the same in it as before. Files that are bad are told to
// the log, once, and change nothing.
func (k *Keeper) Watch(log *zap.Logger, use func(Set)) {
	k.log = log
	if k.files.empty() {
		return
	}
	k.work.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				k.look(use)
			case <-k.stop:
				return
			}
		}
	})
}

// look reads the files again if they have changed, or were bad.
func (k *Keeper) look(use func(Set)) {
	if k.told == "" && !k.files.moved(k.tried) {
		return
	}
	r, err := k.files.read(k.force)
	k.tried = r
	switch {
	case err != nil:
		k.reject(err)
		return
	case !r.equal(k.force):
		k.force = r
		k.renewed.Add(1)
		k.log.Info("the files of TLS have changed: connections made with the old ones end after their exchange")
		use(r.set)
	case k.told != "":
		k.log.Info("the files of TLS are again what they were")
	}
	k.told = ""
}

// reject tells of files that are bad, once for all that is wrong with them.
func (k *Keeper) reject(err error) {
	if err.Error() == k.told {
		return
	}
	k.told = err.Error()
	k.rejected.Add(1)
	k.log.Error("the files of TLS have changed and are no good: carpool goes on with what was in them before",
		zap.String("error", logs.Text(k.told)))
}

// Stats are a Keeper's figures.
type Stats struct {
	// Renewed counts changes that came into force, Rejected those that were no good.
	Renewed, Rejected uint64
}

// Stats returns the figures as they are now.
func (k *Keeper) Stats() Stats { return Stats{k.renewed.Load(), k.rejected.Load()} }

// Close ends the watch, and waits for it.
func (k *Keeper) Close() {
	close(k.stop)
	k.work.Wait()
}
