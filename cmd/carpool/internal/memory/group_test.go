package memory_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
)

// tree makes files, named by path, and returns the directory they are in.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(root, name), text)
	}
	return root
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const (
	mountV1      = "35 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n36 31 0:32 ROOT /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	mountV2      = "30 24 0:26 ROOT /sys/fs/cgroup ro,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"
	mountUnified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	noLimitV1    = "9223372036854771712\n"
	statV1       = "cache 9000\nactive_file 1\ninactive_file 2\ntotal_active_file 300\ntotal_inactive_file 4000\n"
	statV2       = "anon 1\nfile 9000\nactive_file 300\ninactive_file 4000\nslab_reclaimable 77\n"
)

func TestTheLimitIsFoundWhereverTheGroupIs(t *testing.T) {
	t.Parallel()
	const v1, v2 = "sys/fs/cgroup/memory/", "sys/fs/cgroup/"
	tests := map[string]struct {
		files map[string]string
		limit int64
	}{
		"version 2 in a container": {map[string]string{
			"proc/self/mountinfo": strings.Replace(mountV2, "ROOT", "/", 1), "proc/self/cgroup": "0::/\n",
			v2 + "memory.max": "67108864\n", v2 + "memory.current": "50000\n", v2 + "memory.stat": statV2,
		}, 64 << 20},
		"version 2 without a limit": {map[string]string{
			"proc/self/mountinfo": strings.Replace(mountV2, "ROOT", "/", 1), "proc/self/cgroup": "0::/\n",
			v2 + "memory.max": "max\n",
		}, 0},
		"version 2 on a host, the limit further up": {map[string]string{
			"proc/self/mountinfo": strings.Replace(mountV2, "ROOT", "/", 1), "proc/self/cgroup": "0::/a/b/c\n",
			v2 + "a/b/c/memory.max": "max\n", v2 + "a/b/memory.max": "4096000\n", v2 + "a/memory.max": "8192000\n",
			v2 + "a/b/memory.current": "50000\n", v2 + "a/b/memory.stat": statV2,
			v2 + "a/memory.current": "1", v2 + "a/memory.stat": "",
		}, 4096000},
		"version 1 in a container, by a path of the host's": {map[string]string{
			"proc/self/mountinfo":        strings.Replace(mountV1, "ROOT", "/kubepods/pod1/c1", 1),
			"proc/self/cgroup":           "4:memory:/kubepods/pod1/c1\n2:cpu,cpuacct:/elsewhere\n",
			v1 + "memory.limit_in_bytes": "33554432\n", v1 + "memory.usage_in_bytes": "50000\n", v1 + "memory.stat": statV1,
		}, 32 << 20},
		"version 1 in a container, with another path in sight": {map[string]string{
			"proc/self/mountinfo": strings.Replace(mountV1, "ROOT", "/docker/c1", 1), "proc/self/cgroup": "4:memory:/\n",
			v1 + "memory.limit_in_bytes": "33554432\n", v1 + "memory.usage_in_bytes": "50000\n", v1 + "memory.stat": statV1,
		}, 32 << 20},
		"both versions, memory with the first": {map[string]string{
			"proc/self/mountinfo":          strings.Replace(mountV1, "ROOT", "/", 1) + mountUnified,
			"proc/self/cgroup":             "9:name=systemd:/\n4:memory:/g\n0::/other\n",
			v1 + "g/memory.limit_in_bytes": "33554432\n", v1 + "memory.limit_in_bytes": noLimitV1,
			v1 + "g/memory.usage_in_bytes": "50000\n", v1 + "g/memory.stat": statV1,
		}, 32 << 20},
		"version 1 without a limit": {map[string]string{
			"proc/self/mountinfo": strings.Replace(mountV1, "ROOT", "/", 1), "proc/self/cgroup": "4:memory:/g\n",
			v1 + "g/memory.limit_in_bytes": noLimitV1, v1 + "memory.limit_in_bytes": noLimitV1,
		}, 0},
		"no group":      {map[string]string{"proc/self/mountinfo": "22 1 0:20 / /proc rw - proc proc rw\n"}, 0},
		"no proc":       {nil, 0},
		"odd lines":     {map[string]string{"proc/self/mountinfo": "\n - \nx - cgroup2\n", "proc/self/cgroup": "::\n0\n\n"}, 0},
		"an empty file": {map[string]string{"proc/self/mountinfo": strings.Replace(mountV2, "ROOT", "/", 1), v2 + "memory.max": ""}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := memory.Find(tree(t, test.files))
			defer g.Close()
			if got := g.Limit(); got != test.limit {
				t.Fatalf("limit is %d, want %d", got, test.limit)
			}
			if test.limit == 0 {
				return
			}
			if used, err := g.Used(); err != nil || used != 50000-4300 {
				t.Errorf("used are %d, %v, want what are no file pages, 45700", used, err)
			}
		})
	}
}

func TestFiguresAreReadAnew(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{
		"proc/self/mountinfo": strings.Replace(mountV2, "ROOT", "/", 1), "proc/self/cgroup": "0::/\n",
		"sys/fs/cgroup/memory.max": "1000000\n", "sys/fs/cgroup/memory.current": "5000\n", "sys/fs/cgroup/memory.stat": statV2,
	})
	g := memory.Find(root)
	defer g.Close()
	if l := g.Limit(); l != 1000000 {
		t.Fatalf("limit is %d", l)
	}
	if n, err := g.Used(); err != nil || n != 700 {
		t.Fatalf("used are %d, %v", n, err)
	}
	put(t, filepath.Join(root, "sys/fs/cgroup/memory.max"), "2000000\n")
	put(t, filepath.Join(root, "sys/fs/cgroup/memory.current"), "9300\n")
	if l := g.Limit(); l != 2000000 {
		t.Errorf("limit is %d after it was raised", l)
	}
	if n, err := g.Used(); err != nil || n != 5000 {
		t.Errorf("used are %d, %v after they grew", n, err)
	}
	put(t, filepath.Join(root, "sys/fs/cgroup/memory.stat"), "active_file 9000\n")
	for deadline := time.Now().Add(10 * time.Second); ; {
		if n, err := g.Used(); err != nil || n == 300 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("file pages are not read again")
		}
	}
}
