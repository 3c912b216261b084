// Package memory keeps carpool within the memory that its container may use: it finds the limit of the cgroup, tells the
// garbage collector of it, and sheds load before the kernel would kill the process.
package memory

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Group is the memory cgroup of this process, of version 1 or 2, with those above it as far as they can be seen. The
// zero value, and a process without one, has no limit.
type Group struct {
	names  names
	levels []string // the directories, from the process' own upwards

	// Of the level with the lowest limit.
	dir         string
	usage, stat *os.File
	files       int64     // file pages
	filesRead   time.Time // when
}

// names are what a version calls its files and fields.
type names struct {
	limit, usage string
	fields       [2]string // of memory.stat: file pages, which the kernel takes back when it needs to
}

var (
	version1 = names{"memory.limit_in_bytes", "memory.usage_in_bytes", [2]string{"total_active_file", "total_inactive_file"}}
	version2 = names{"memory.max", "memory.current", [2]string{"active_file", "inactive_file"}}
)

// Find finds the group of this process below root, which is "/" but for tests.
func Find(root string) *Group {
	g := &Group{}
	mounts, _ := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(mounts)) {
		mounted, at, names, ok := mount(line)
		if !ok {
			continue
		}
		top := filepath.Join(root, at)
		dir := top
		// In a container the mount shows no more than the container's own group, under whatever path.
		if below, err := filepath.Rel(mounted, path(string(groups), names)); err == nil && filepath.IsLocal(below) {
			dir = filepath.Join(top, below)
		}
		if names == version2 && g.levels != nil {
			continue // version 1 has the memory controller, version 2 is there for other things
		}
		g.names, g.levels = names, nil
		for ; len(dir) >= len(top); dir = filepath.Dir(dir) {
			g.levels = append(g.levels, dir)
		}
	}
	return g
}

// mount reads a line of mountinfo: which group is mounted, and where, if it is one for memory.
func mount(line string) (mounted, at string, _ names, ok bool) {
	before, after, _ := strings.Cut(line, " - ")
	fields, kind := strings.Fields(before), strings.Fields(after)
	if len(fields) < 5 || len(kind) < 3 {
		return "", "", names{}, false
	}
	switch {
	case kind[0] == "cgroup2":
		return fields[3], fields[4], version2, true
	case kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ",memory,"):
		return fields[3], fields[4], version1, true
	}
	return "", "", names{}, false
}

// path is the group in the lines of /proc/self/cgroup, which are number:controllers:path.
func path(groups string, n names) string {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if n == version2 && fields[0] == "0" || n == version1 && strings.Contains(","+fields[1]+",", ",memory,") {
			return fields[2]
		}
	}
	return "/"
}

// Limit returns the lowest limit in force, in bytes; 0 if there is none. It reads the files again each time: a pod's
// limit may be changed while it runs.
func (g *Group) Limit() int64 {
	lowest, dir := int64(math.MaxInt64), ""
	for _, level := range g.levels {
		text, err := os.ReadFile(filepath.Join(level, g.names.limit))
		if err != nil {
			continue // the topmost group of version 2 has none
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n < lowest {
			lowest, dir = n, level
		}
	}
	if lowest > math.MaxInt64/2 { // version 1 writes the highest multiple of a page
		dir, lowest = "", 0
	}
	if dir != g.dir {
		g.Close()
		g.dir = dir
	}
	return lowest
}

// filesFor is how long the size of the file pages is taken for known: it takes the kernel much longer to tell than the
// usage.
const filesFor = 5 * time.Millisecond

// Used returns how much the group with the lowest limit uses of it, as found by Limit, without what the kernel can take
// back: file pages. What sockets hold is counted where the kernel counts it.
func (g *Group) Used() (int64, error) {
	if g.usage == nil {
		if err := g.open(); err != nil {
			g.Close()
			return 0, err
		}
	}
	text, err := readAgain(g.usage)
	if err != nil {
		return 0, err
	}
	usage, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, err
	}
	if time.Since(g.filesRead) >= filesFor {
		if text, err = readAgain(g.stat); err != nil {
			return 0, err
		}
		g.files, g.filesRead = sum(text, g.names.fields), time.Now()
	}
	return max(usage-g.files, 0), nil
}

func (g *Group) open() (err error) {
	if g.usage, err = os.Open(filepath.Join(g.dir, g.names.usage)); err != nil {
		return err
	}
	g.stat, err = os.Open(filepath.Join(g.dir, "memory.stat"))
	return err
}

// Close closes the files that Used keeps open. It opens them again when it is called again.
func (g *Group) Close() {
	for _, f := range []**os.File{&g.usage, &g.stat} {
		if *f != nil {
			_ = (*f).Close()
			*f = nil
		}
	}
	g.filesRead = time.Time{}
}

// readAgain reads a file from its beginning.
func readAgain(f *os.File) (string, error) {
	var buffer [8 << 10]byte // memory.stat has about 2 KB
	n, err := f.ReadAt(buffer[:], 0)
	if err == io.EOF {
		err = nil
	}
	return string(buffer[:n]), err
}

// sum adds up fields of memory.stat.
func sum(stat string, fields [2]string) (total int64) {
	for line := range strings.Lines(stat) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == fields[0] || name == fields[1] {
			n, _ := strconv.ParseInt(value, 10, 64)
			total += n
		}
	}
	return total
}
