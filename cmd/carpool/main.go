// Command carpool is a sidecar egress proxy that carries an app's plain HTTP on
// long-lived, pooled upstream connections. See the README.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
