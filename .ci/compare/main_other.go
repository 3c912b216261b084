//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "compare needs Linux: it reads the kernel's account of CPU and memory")
	os.Exit(2)
}
