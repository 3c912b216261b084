package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// freePort returns a port of loopback that nothing listens on.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// startCarpool starts carpool with a local port.
func startCarpool(name, binary string, up *upstream) (*peer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary)
	cmd.Env = environment("CARPOOL_LISTEN=127.0.0.1:0", "CARPOOL_ADMIN_LISTEN=127.0.0.1:0",
		"CARPOOL_LOCAL_PORTS="+port+"=https://"+up.addr, "CARPOOL_CA_FILE="+up.ca)
	return begin(name, cmd, port)
}

const haproxyConfig = `global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
listen up
    bind 127.0.0.1:%s
    server up %s ssl verify required ca-file %s sni str(localhost) alpn http/1.1 pool-max-conn 1000
`

// startHAProxy starts HAProxy with a port that leads to the upstream.
func startHAProxy(binary, dir string, up *upstream) (*peer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, port, up.addr, up.ca), 0o600); err != nil {
		return nil, err
	}
	version, err := exec.Command(binary, "-v").Output()
	if err != nil {
		return nil, fmt.Errorf("HAProxy (-haproxy says where it is): %w", err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	fmt.Println(first)
	return begin("HAProxy", exec.Command(binary, "-db", "-f", file), port)
}

// begin starts a proxy and waits until it answers.
func begin(name string, cmd *exec.Cmd, port string) (*peer, error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{name, net.JoinHostPort("127.0.0.1", port), cmd}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := crowd(p.addr, loads[0], 1, 1)
		if err == nil {
			return p, nil
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("%s does not answer: %w\n%s", name, err, said.Bytes())
		}
	}
}

// cpu returns the CPU time that the proxy's threads have used.
func (p *peer) cpu() (sum time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("no CPU time of %s under /proc: this needs Linux (%v)", p.name, err)
	}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}
