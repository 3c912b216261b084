package program

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/preload"
	"github.com/carpoolproxy/carpool/internal/sock"
)

// errStopped means that carpool was told to stop before it served.
var errStopped = errors.New("stopped before it served")

// Waits between attempts to listen.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

// listen opens the listeners.
func (s *sidecar) listen(ctx context.Context) error {
	err := s.insist(ctx, "CARPOOL_LISTEN="+s.cfg.Listen, func() (err error) {
		s.listener, err = sock.Listen(ctx, s.cfg.Listen)
		return err
	})
	if err != nil {
		return err
	}
	err = s.insist(ctx, "CARPOOL_ADMIN_LISTEN="+s.cfg.AdminListen, func() (err error) {
		s.admin, err = admin.Listen(ctx, s.cfg.AdminListen)
		return err
	})
	if err != nil {
		return err
	}
	return s.listenLocal(ctx)
}

// insist tries to listen until it works, ctx ends, or it fails in a way that
// trying again cannot mend. To exit instead would only make the kubelet try, at
// intervals that soon are minutes.
func (s *sidecar) insist(ctx context.Context, setting string, listen func() error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := listen()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errStopped
		}
		if !mayPass(err) {
			return fmt.Errorf("cannot listen on %s: %w", setting, err)
		}
		s.log.Warn("cannot listen yet", zap.String("on", setting), zap.Error(err), zap.Duration("next_try_in", wait))
		if !pause(ctx, wait) {
			return errStopped
		}
	}
}

// mayPass reports whether what is in the way of listening may go away: another
// process that has the port, an address that is not there yet, a shortage.
func mayPass(err error) bool {
	for _, e := range [...]error{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return sock.Exhausted(err)
}

// pause waits and reports true, or false as soon as ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// writePreload puts the script for Node.js where the app finds it.
func writePreload(dir string) error {
	if dir == "" {
		return nil
	}
	if err := preload.Write(dir); err != nil {
		return fmt.Errorf("CARPOOL_PRELOAD_DIR=%s: want a directory that carpool may write to: %w", dir, err)
	}
	return nil
}

// isSet reports whether a variable is there and not empty.
func isSet(environ []string, name string) bool {
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v != ""
		}
	}
	return false
}
