package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// moreClients are those of further libraries and languages, and of Node.js where
// that reads HTTP_PROXY itself.
func moreClients() []client {
	const (
		loopback = "127.0.0.1"
		// Go asks no proxy for 127.0.0.0/8, whatever the environment says.
		notLoopback = "0.0.0.0"
	)
	var all []client
	for _, c := range []struct {
		name, library string
		major         int
	}{
		{"node22 http", "http.get", 22},
		{"node24 http", "http.get", 24},
		{"node26 http", "http.get", 26},
		{"node24 got-11", "got-11", 24},
		{"node24 node-fetch", "node-fetch", 24},
	} {
		all = append(all, client{name: c.name + " NODE_USE_ENV_PROXY", host: loopback, program: envProxyProgram(c.major, c.library)})
	}
	return append(all,
		client{name: "node18 undici-6 EnvHttpProxyAgent", host: loopback, program: nodeProgram(18, "undici-6", "default-agent")},
		client{name: "node24 undici-7 EnvHttpProxyAgent", host: loopback, program: nodeProgram(24, "undici-7", "default-agent")},
		client{name: "node26 undici-8 EnvHttpProxyAgent", host: loopback, program: nodeProgram(26, "undici-8", "default-agent")},
		client{name: "node26 undici-8 ProxyAgent for each call", host: loopback, program: nodeProgram(26, "undici-8", "closing-agent")},
		client{name: "python aiohttp", host: loopback, program: pythonProgram("aiohttp")},
		client{name: "python httpx", host: loopback, program: pythonProgram("httpx")},
		client{name: "php curl", host: loopback, program: phpProgram},
		client{name: "perl LWP", host: loopback, program: perlProgram},
		client{name: "wget", host: loopback, program: shellProgram("wget", "wget")},
		client{name: "go", host: notLoopback, program: goProgram("close")},
		client{name: "go keep-alive", host: notLoopback, program: goProgram("keep-alive")},
		client{name: "java HttpClient", host: loopback, program: javaProgram("NewClient.java", true)},
	)
}

// envProxyProgram is a client of Node.js that goes by HTTP_PROXY without a script.
func envProxyProgram(major int, library string) func(int) (program, error) {
	plain := nodeProgram(major, library, "default-agent")
	return func(port int) (program, error) {
		p, err := plain(port)
		p.env = append(p.env, "NODE_USE_ENV_PROXY=1")
		return p, err
	}
}

func phpProgram(int) (program, error) {
	php, err := tool("php", "php-cli")
	if err == nil {
		err = has(php, "php-curl", "-r", "exit(extension_loaded('curl') ? 0 : 1);")
	}
	return program{argv: []string{php, filepath.Join("programs", "client.php")}}, err
}

func perlProgram(int) (program, error) {
	perl, err := tool("perl", "perl")
	if err == nil {
		err = has(perl, "libwww-perl", "-MLWP::UserAgent", "-e", "1")
	}
	if err == nil {
		err = has(perl, "liblwp-protocol-https-perl", "-MLWP::Protocol::https", "-e", "1")
	}
	return program{argv: []string{perl, filepath.Join("programs", "client.pl")}}, err
}

// goClient is the client program for Go.
var goClient = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "go-client")
	out, err := runProgram(installTimeout, os.Environ(), "go", "build", "-o", bin, "./programs")
	if err != nil {
		return "", fmt.Errorf("go build ./programs: %w\n%s", err, out)
	}
	return bin, nil
})

func goProgram(kind string) func(int) (program, error) {
	return func(int) (program, error) {
		bin, err := goClient()
		return program{argv: []string{bin, kind}}, err
	}
}

// has returns nil if a program with these arguments finds what a package of Debian
// brings.
func has(path, debian string, args ...string) error {
	out, err := runProgram(time.Minute, os.Environ(), append([]string{path}, args...)...)
	if err != nil {
		return fmt.Errorf("%w: %s (run install.sh): %s", errMissing, debian, out)
	}
	return nil
}
