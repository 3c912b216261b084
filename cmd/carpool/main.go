// Command carpool is a sidecar egress proxy that carries an app's plain HTTP on
// long-lived, pooled upstream connections. See the README.
package main

import (
	"context"
	"os"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
)

func main() {
	os.Exit(program.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
