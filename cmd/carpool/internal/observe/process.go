package observe

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
)

// A Process is a runtime, and what runs it.
type Process struct {
	Runtime string `json:"runtime"`
	PIDs    []int  `json:"pids"`
	// Proxy is what one of them has in HTTP_PROXY or http_proxy; empty if nothing, or if that cannot be seen.
	Proxy string `json:"proxy,omitempty"`
	// Annotation of a pod makes these programs use carpool; empty: they need none.
	Annotation string `json:"annotation,omitempty"`
}

// runtimes are known by what the names of their programs begin with. What Advices names is the runtime.
var runtimes = []struct{ programs, runtime, annotation string }{
	{"node nodejs next-server npm yarn", "Node.js", `carpoolproxy.github.io/preload: "true"`},
	{"python gunicorn uvicorn celery uwsgi", "Python", ""},
	{"ruby puma unicorn sidekiq", "Ruby", ""},
	{"java", "Java", `carpoolproxy.github.io/java: "true"`},
	{"dotnet", ".NET", ""},
	{"php php-fpm php-cgi", "PHP", ""},
}

// runs reports whether a program is one of these, in whatever version: python3.11 is python.
func runs(program, programs string) bool {
	return slices.Contains(strings.Fields(programs), strings.TrimRight(program, "0123456789."))
}

// processes finds runtimes among the processes that can be seen, in a folder like /proc.
func processes(proc string) []Process {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return []Process{}
	}
	found := map[string]*Process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		folder := filepath.Join(proc, e.Name())
		name := programOf(folder)
		for _, r := range runtimes {
			if !runs(name, r.programs) {
				continue
			}
			p := found[r.runtime]
			if p == nil {
				p = &Process{Runtime: r.runtime, Annotation: r.annotation}
				found[r.runtime] = p
			}
			p.PIDs = append(p.PIDs, pid)
			p.Proxy = cmp.Or(p.Proxy, proxyOf(folder))
			break
		}
	}
	all := []Process{}
	for _, p := range found {
		slices.Sort(p.PIDs)
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b Process) int { return strings.Compare(a.Runtime, b.Runtime) })
	return all
}

// programOf is the name of the program that a process runs: the first word of its command line, which anybody may read.
// Some programs write a title there, such as "puma 6.4: …".
func programOf(folder string) string {
	line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(line, []byte{0})
	word, _, _ := strings.Cut(string(first), " ")
	return strings.TrimSuffix(filepath.Base(word), ":")
}

// proxyOf is the proxy in a process's environment, which only its user may read, without what may be a password.
func proxyOf(folder string) string {
	environ, err := os.ReadFile(filepath.Join(folder, "environ"))
	if err != nil {
		return ""
	}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		name, value, _ := strings.Cut(string(entry), "=")
		if name != "HTTP_PROXY" && name != "http_proxy" || value == "" {
			continue
		}
		if at := strings.LastIndexByte(value, '@'); at >= 0 {
			value = "…" + value[at:]
		}
		return name + "=" + value
	}
	return ""
}

// advisedBy reports whether advice is for this runtime.
func (p Process) advisedBy(a bypass.Advice) bool {
	return strings.Contains(a.Runtime, p.Runtime)
}

// numbers are the processes, the first few of them.
func (p Process) numbers() string {
	const few = 5
	var all []string
	for _, pid := range p.PIDs[:min(len(p.PIDs), few)] {
		all = append(all, strconv.Itoa(pid))
	}
	text := strings.Join(all, ", ")
	if more := len(p.PIDs) - few; more > 0 {
		text += " and " + strconv.Itoa(more) + " more"
	}
	return text
}
