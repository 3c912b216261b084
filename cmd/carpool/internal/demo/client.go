package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// requestTimeout ends a request that got no answer.
const requestTimeout = 10 * time.Second

// outcome is what a run of requests came to.
type outcome struct {
	took         time.Duration
	latencies    []time.Duration // of the requests answered rightly, sorted
	failed       int
	firstFailure string // empty if none failed
	connections  int    // opened at the upstream
}

// percentile returns the latency that p of 100 requests did not exceed, or zero if
// none was answered.
func (o outcome) percentile(p int) time.Duration {
	n := len(o.latencies)
	if n == 0 {
		return 0
	}
	return o.latencies[max((n*p+99)/100, 1)-1]
}

// play makes opts.requests requests by ask, opts.concurrency at a time, until ctx is
// done. Each has a tag of its own, and ask must fail unless the answer bears it.
func play(ctx context.Context, opts options, ask func(ctx context.Context, tag string) error) outcome {
	var (
		run     = newRunName()
		next    atomic.Int64
		workers sync.WaitGroup
		mu      sync.Mutex // guards result; held for no call
		result  outcome
	)
	began := time.Now()
	for range min(opts.concurrency, opts.requests) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1))
				if i > opts.requests {
					return
				}
				asked := time.Now()
				err := ask(ctx, fmt.Sprintf("%s-%d", run, i))
				latency := time.Since(asked)
				mu.Lock()
				if err == nil {
					result.latencies = append(result.latencies, latency)
				} else {
					result.failed++
					if result.firstFailure == "" {
						result.firstFailure = err.Error()
					}
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	result.took = time.Since(began)
	slices.Sort(result.latencies)
	return result
}

// legacyClient is the client that carpool was made for: it opens a connection for
// every request, says Connection: close, and knows nothing else.
type legacyClient struct {
	dial         string // the address it connects to: the upstream or the proxy
	host         string // the upstream, as the Host field says it
	targetPrefix string // what stands before the tag: origin-form or absolute-form
}

// ask makes one request and checks that the answer is the one to it.
func (c legacyClient) ask(ctx context.Context, tag string) error {
	deadline := time.Now().Add(requestTimeout)
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, "tcp", c.dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	_, err = fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: carpool-demo\r\nConnection: close\r\n\r\n",
		c.targetPrefix, tag, c.host)
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("answer cut short: %w", err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("answered %s: %.200q", response.Status, body)
	case string(body) != answerTo(tag):
		return fmt.Errorf("answer to another request: asked for %s, got %.200q", tag, body)
	}
	return nil
}
