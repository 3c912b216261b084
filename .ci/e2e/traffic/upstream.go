package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// nodeIdle is how long Node.js keeps a connection without a request.
const nodeIdle = 5 * time.Second

// upstream answers on port 8080 with its pod's name.
//
//	WORK  how long an answer takes (5ms)
//	END   what SIGTERM does: "dies" ends the process at once; "drains" is
//	      server.close() of Node.js up to 18: it takes no connection any more,
//	      serves on those it has, and ends when the last is gone
func upstream() error {
	work, err := duration("WORK", "5ms")
	if err != nil {
		return err
	}
	end := os.Getenv("END")
	if end != "dies" && end != "drains" {
		return fmt.Errorf("END=%q: want dies or drains", end)
	}
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	var seen struct{ Connections, Requests, open atomic.Int64 }
	closing, gone := make(chan struct{}), make(chan struct{}, 1)
	name := os.Getenv("HOSTNAME")
	server := http.Server{
		IdleTimeout: nodeIdle,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen.Requests.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(work)
			_, _ = io.WriteString(w, name)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				seen.Connections.Add(1)
				seen.open.Add(1)
			case http.StateClosed:
				if seen.open.Add(-1) == 0 {
					select {
					case gone <- struct{}{}:
					default:
					}
				}
			}
		},
	}
	go show(func() []byte {
		return encoded(map[string]int64{"Connections": seen.Connections.Load(), "Requests": seen.Requests.Load()})
	})
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		<-terminate
		if end == "dies" {
			os.Exit(0)
		}
		close(closing)
		_ = listener.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, net.ErrClosed) {
		return err
	}
	<-closing
	for seen.open.Load() > 0 {
		<-gone
	}
	return nil
}
