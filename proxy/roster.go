package proxy

import (
	"runtime/debug"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
	"github.com/carpoolproxy/carpool/internal/sock"
)

// roster knows all sessions, by their reins: those awake, and those asleep, which
// are idle and have no goroutine. A tunnel is awake, as far as that goes, but its
// directions may doze.
type roster struct {
	most    int           // sessions; 0 is no limit
	watcher *sock.Watcher // wakes sessions that sleep

	// mu guards what is below, and the seats. A session's mutex may be taken while
	// it is held, never the other way round; it is never held across I/O that can
	// wait.
	mu       sync.Mutex
	awake    list.List[*reins]
	asleep   map[uint64]*reins
	dozing   map[uint64]*way // without a goroutine too
	lastID   uint64
	stacks   int // that those which fell asleep have left behind
	clients  int
	accepted uint64
}

// seat is a session's place in the roster, which guards it.
type seat struct {
	node list.Node[*reins] // while awake
	id   uint64            // while asleep
}

// full reports whether there is room for no other client.
func (r *roster) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most > 0 && r.clients >= r.most
}

// evictIdlest ends the session that has been idle longest, and reports whether there
// was one.
func (r *roster) evictIdlest() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var oldest *reins
	var since time.Duration
	consider := func(s *reins) {
		if t, idle := s.idleSince(); idle && (oldest == nil || t < since) {
			oldest, since = s, t
		}
	}
	for e := r.awake.Front(); e != nil; e = e.Next() {
		consider(e.Value)
	}
	for _, s := range r.asleep {
		consider(s)
	}
	return oldest != nil && r.evictLocked(oldest)
}

// closeIdle closes some client connections that have been idle since then.
func (r *roster) closeIdle(latest time.Duration) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := func(s *reins) bool {
		since, idle := s.idleSince()
		return idle && since <= latest
	}
	for e := r.awake.Front(); e != nil && n < closeAtATime; e = e.Next() {
		if s := e.Value; old(s) && r.evictLocked(s) {
			n++
		}
	}
	for _, s := range r.asleep {
		if n == closeAtATime {
			break
		}
		if old(s) && r.evictLocked(s) {
			n++
		}
	}
	return n
}

// evictLocked ends an idle session.
func (r *roster) evictLocked(s *reins) bool {
	if !s.evict() {
		return false
	}
	r.wakeLocked(s)
	return true
}

// join adds the session of a new client, which is awake.
func (r *roster) join(s *reins) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.linkLocked(s)
	r.clients++
	r.accepted++
}

// leave removes a session, which is awake.
func (r *roster) leave(s *reins) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.awake.Remove(&s.node)
	r.clients--
}

func (r *roster) linkLocked(s *reins) {
	s.node.Value = s
	r.awake.PushFront(&s.node)
}

// sleep lets an idle session wait without a goroutine: its stack is most of
// what an idle client costs. It is the last thing that goroutine does. If the
// session cannot be watched it goes on awake.
func (r *roster) sleep(s *reins) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastID++
	s.id = r.lastID
	s.rest()
	if r.watcher.Arm(s.conn, s.id) != nil {
		go s.run()
		return
	}
	r.awake.Remove(&s.node)
	r.asleep[s.id] = s
	r.stacks++
}

// wakeLocked gives a session that sleeps a goroutine again.
func (r *roster) wakeLocked(s *reins) {
	if r.asleep[s.id] != s {
		return
	}
	delete(r.asleep, s.id)
	r.linkLocked(s)
	go s.run()
}

// doze lets a direction of a tunnel wait without a goroutine, if it was interrupted for
// that. It is the last thing that goroutine does. If it cannot be watched it goes on
// awake.
func (r *roster) doze(w *way) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.t.s.reins.mayDoze(w) {
		return false
	}
	r.lastID++
	w.id, w.err = r.lastID, nil
	if w.arm(r.watcher) != nil {
		go w.run()
		return true
	}
	r.dozing[w.id] = w
	r.stacks++
	return true
}

// rouse wakes a direction of a tunnel, if it sleeps.
func (r *roster) rouse(w *way) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rouseLocked(w)
}

func (r *roster) rouseLocked(w *way) {
	if r.dozing[w.id] == w {
		delete(r.dozing, w.id)
		go w.run()
	}
}

// quiet counts the tunnels that a drain need not wait for. All of them are in
// the counts that Busy has taken before, or have ended since.
func (r *roster) quiet() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.awake.Front(); e != nil; e = e.Next() {
		if e.Value.isQuiet() {
			n++
		}
	}
	return n
}

// cutAll ends whatever the sessions are doing.
func (r *roster) cutAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.awake.Front(); e != nil; e = e.Next() {
		if f := e.Value.cut(); f != nil {
			for _, w := range f.ways {
				r.rouseLocked(w)
			}
		}
	}
	for _, s := range r.asleep {
		s.cut()
		r.wakeLocked(s)
	}
}

// manyStacks is how many stacks are worth a garbage collection.
const manyStacks = 512

// freeStacks gives the memory of stacks back to the system when many sessions
// have fallen asleep and no more do. The runtime itself would keep it for
// minutes, for there is next to no garbage here that makes it collect. It
// takes how many stacks there were before, and returns how many there are now.
func (r *roster) freeStacks(before int) int {
	r.mu.Lock()
	now := r.stacks
	quiet := now >= manyStacks && now == before
	if quiet {
		r.stacks, now = 0, 0
	}
	r.mu.Unlock()
	if quiet {
		debug.FreeOSMemory()
	}
	return now
}

// appendAwake appends the sessions that are awake.
func (r *roster) appendAwake(list []*reins) []*reins {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.awake.Front(); e != nil; e = e.Next() {
		list = append(list, e.Value)
	}
	return list
}

// wakeID wakes what sleeps with this id, if there is such a thing.
func (r *roster) wakeID(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.asleep[id]; s != nil {
		r.wakeLocked(s)
	} else if w := r.dozing[id]; w != nil {
		r.rouseLocked(w)
	}
}

// figures returns how many clients there are, and have been.
func (r *roster) figures() (clients int, accepted uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clients, r.accepted
}
