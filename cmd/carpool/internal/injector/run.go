package injector

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/kube"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
)

// Exit codes of Run.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `usage: carpool injector --config FILE

It is the admission webhook that the chart installs where the API server has no
MutatingAdmissionPolicy: the chart writes FILE, and starts it.

  --config FILE            what to inject, where to listen, whose certificates
  --service-account DIR    where token and ca.crt of the API server are
                           (default ` + kube.ServiceAccount + `)
`

const (
	// atATime is how many reviews are at work at a time. One of a pod of usual size takes a
	// millisecond, and one of the largest some 30 MB.
	atATime = 3
	// drainDelay is how long it serves after it has said that it is not ready: until
	// the API server calls another replica. drainTime is how long reviews then have.
	drainDelay = 5 * time.Second
	drainTime  = 10 * time.Second
	// Bounds on a call. The API server waits 30 seconds at most.
	readTime  = 10 * time.Second
	writeTime = 30 * time.Second
	idleTime  = 5 * time.Minute
)

// Run is `carpool injector`: args are what follows the name, environ is a list of
// NAME=value. It serves until ctx ends, drains, and returns the exit code: 1 if
// something failed, 2 for bad usage or a file that says something wrong.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("injector", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("config", "", "")
	account := flags.String("service-account", kube.ServiceAccount, "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err == nil && (*file == "" || flags.NArg() > 0) {
		err = errors.New("give a file by --config FILE, and nothing else")
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool injector: %v\nSee carpool injector -h.\n", err)
		return exitUsage
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		fmt.Fprintf(stderr, "carpool injector: %v\n", err)
		return exitFailed
	}
	c, o, err := readConfig(text)
	if err != nil {
		fmt.Fprintf(stderr, "carpool injector: %s: %v\n", *file, err)
		return exitUsage
	}
	client, err := kube.New(environ, *account)
	if err == nil {
		err = serve(ctx, c, o, client, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool injector: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// serve reviews pods until ctx ends, and then drains.
func serve(ctx context.Context, c Config, o inject.Options, client *kube.Client, stderr io.Writer) error {
	log := logs.New(config.Config{LogLevel: zapcore.InfoLevel, LogFormat: config.LogJSON}, stderr)
	defer log.Close()
	var lc net.ListenConfig
	reviews, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	defer reviews.Close()
	health, err := lc.Listen(ctx, "tcp", c.Admin)
	if err != nil {
		return err
	}
	defer health.Close()

	var figures counts
	k := &keeper{config: c, api: client, log: log.Logger, now: time.Now}
	v := &reviewer{options: o, whenMissing: c.WhenMissing, namespaces: newNamespaces(client), counts: &figures, log: log.Logger,
		turns: make(chan struct{}, atATime)}
	looking, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last review
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { k.run(looking) })
	if c.CountMissed {
		all.Go(func() { counter{client, log.Logger}.run(looking, figures.setMissed) })
	}
	var draining atomic.Bool
	broken := make(chan error, 2)
	webhook := server(reviewHandler(v), log.Logger)
	webhook.TLSConfig = &tls.Config{GetCertificate: k.certificate, MinVersion: tls.VersionTLS12}
	admin := server(adminHandler(&figures, k, &draining), log.Logger)
	all.Go(func() { broken <- webhook.ServeTLS(reviews, "", "") })
	all.Go(func() { broken <- admin.Serve(health) })
	defer admin.Close()
	defer webhook.Close()
	log.Info("serving", zap.String("listen", reviews.Addr().String()), zap.String("admin", health.Addr().String()))
	select {
	case err := <-broken:
		return err
	case <-ctx.Done():
	}
	draining.Store(true)
	log.Info("draining")
	time.Sleep(drainDelay)
	end, cancel := context.WithTimeout(looking, drainTime)
	defer cancel()
	return webhook.Shutdown(end)
}

func server(h http.Handler, l *zap.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: readTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		ErrorLog: log.New(errorLog{l}, "", 0),
	}
}

// errorLog writes what net/http has to say, which is of clients mostly: probes of
// ports, and API servers that do not trust the certificate yet.
type errorLog struct{ *zap.Logger }

func (l errorLog) Write(text []byte) (int, error) {
	l.Warn("net/http", zap.String("error", logs.Text(string(text))))
	return len(text), nil
}

func reviewHandler(v *reviewer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathPlain, v)
	mux.Handle("POST "+pathSettings, v)
	return mux
}

func adminHandler(c *counts, k *keeper, draining *atomic.Bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := k.ready()
		if draining.Load() {
			err = errors.New("draining")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /metrics", metrics(c, k))
	return mux
}
