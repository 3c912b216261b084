package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

var (
	nodeMajors    = []int{10, 12, 14, 16, 18, 20, 22, 24}
	nodeLibraries = []string{"axios-0.21", "axios-1.6", "axios-latest", "request"}
)

// A client is one HTTP library on one version of its language.
type client struct {
	name string
	// host is the address by which it calls upstreams.
	host string
	// program returns what to run. It fails where that is not installed.
	program func(proxyPort int) (program, error)
	// absoluteHTTPS says that it asks a proxy for https by "GET https://…",
	// which carpool can pool, and not by CONNECT, which it can only tunnel.
	absoluteHTTPS bool
	// direct is how many connections of its own it may make besides, before it goes
	// through carpool.
	direct int
}

// A program is a file in the folder programs with what it takes to run it.
type program struct {
	argv []string // up to the arguments that all programs share
	env  []string // beyond what all programs get
}

// matrix returns all clients that are tested. They open a connection per call,
// except those whose name says keep-alive.
func matrix() []client {
	var all []client
	for _, major := range nodeMajors {
		for _, library := range nodeLibraries {
			all = append(all, client{
				name:          fmt.Sprintf("node%d %s", major, library),
				host:          loopback,
				program:       nodeProgram(major, library, "closing-agent"),
				absoluteHTTPS: library == "axios-0.21" || library == "axios-1.6",
			})
		}
	}
	all = append(all, moreClients()...)
	return append(all,
		client{name: "node24 axios-latest keep-alive", host: loopback,
			program: nodeProgram(24, "axios-latest", "default-agent")},
		// fetch of Node.js up to 26.8, and undici up to 8.6, ask by CONNECT for plain HTTP too.
		client{name: "node22 fetch", host: loopback, program: envProxyProgram(22, "fetch")},
		client{name: "node24 fetch", host: loopback, program: envProxyProgram(24, "fetch")},
		client{name: "node26 fetch", host: loopback, program: envProxyProgram(26, "fetch")},
		client{name: "node20 undici-6 EnvHttpProxyAgent", host: loopback,
			program: nodeProgram(20, "undici-6", "default-agent")},
		client{name: "node22 undici-6 ProxyAgent for each call", host: loopback,
			program: nodeProgram(22, "undici-6", "closing-agent")},
		client{name: "node24 undici-7 ProxyAgent for each call", host: loopback,
			program: nodeProgram(24, "undici-7", "closing-agent")},
		client{name: "curl", host: loopback, program: shellProgram("curl", "curl")},
		client{name: "curl --proxytunnel", host: loopback, program: shellProgram("curl", "curl--proxytunnel")},
		client{name: "python http.client tunnel", host: loopback, program: pythonProgram("http.client")},
		client{name: "python urllib", host: loopback, program: pythonProgram("urllib")},
		client{name: "python requests", host: loopback, program: pythonProgram("requests")},
		// Ruby asks no proxy for 127.0.0.0/8, whatever the environment says.
		client{name: "ruby", host: "0.0.0.0", program: rubyProgram},
		client{name: "java", host: loopback, program: javaProgram("Client.java", false)},
		client{name: "java keep-alive", host: loopback, program: javaProgram("Client.java", true)},
	)
}

// available returns nil if the client's program can be run here.
func (c client) available() error {
	_, err := c.program(0)
	return err
}

// clientEnv is what all client programs get. The tests' own environment passes
// on only what finds programs.
func clientEnv(proxyPort int, caFile string) []string {
	proxy := "http://" + address(proxyPort)
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8",
		"HTTP_PROXY=" + proxy, "http_proxy=" + proxy,
		"HTTPS_PROXY=" + proxy, "https_proxy=" + proxy,
		"SSL_CERT_FILE=" + caFile, // urllib, Ruby, Client.java
		"CURL_CA_BUNDLE=" + caFile,
		"REQUESTS_CA_BUNDLE=" + caFile,
		"NODE_EXTRA_CA_CERTS=" + caFile,
	}
}

func nodeProgram(major int, library, agent string) func(int) (program, error) {
	return func(int) (program, error) {
		modules, err := libraries()
		if err != nil {
			return program{}, err
		}
		node, err := nodeBinary(major)
		return program{
			argv: []string{node, filepath.Join("programs", "client.js"), library, agent},
			env:  []string{"NODE_PATH=" + filepath.Join(modules, "node_modules")},
		}, err
	}
}

func pythonProgram(library string) func(int) (program, error) {
	return func(int) (program, error) {
		python, err := pythonBinary()
		return program{argv: []string{python, filepath.Join("programs", "client.py"), library}}, err
	}
}

// shellProgram is a client of the shell that runs a command, which its package is named after.
func shellProgram(command, kind string) func(int) (program, error) {
	return func(int) (program, error) {
		_, err := tool(command, command)
		return program{argv: []string{filepath.Join("programs", "client.sh"), kind}}, err
	}
}

func rubyProgram(int) (program, error) {
	ruby, err := tool("ruby", "ruby")
	return program{argv: []string{ruby, filepath.Join("programs", "client.rb")}}, err
}

func javaProgram(source string, keepAlive bool) func(int) (program, error) {
	return func(proxyPort int) (program, error) {
		// java alone cannot run a source file.
		if _, err := tool("javac", "default-jdk-headless"); err != nil {
			return program{}, err
		}
		java, err := tool("java", "default-jdk-headless")
		port := strconv.Itoa(proxyPort)
		return program{argv: []string{java,
			"-Dhttp.proxyHost=127.0.0.1", "-Dhttp.proxyPort=" + port,
			"-Dhttps.proxyHost=127.0.0.1", "-Dhttps.proxyPort=" + port,
			"-Dhttp.nonProxyHosts=", // by default all of 127.0.0.0/8
			"-Dhttp.keepAlive=" + strconv.FormatBool(keepAlive),
			filepath.Join("programs", source),
		}}, err
	}
}
