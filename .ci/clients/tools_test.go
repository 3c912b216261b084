package clients

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// installTimeout is for npm and pip: about 1 GB is unpacked the first time.
const installTimeout = 10 * time.Minute

// errMissing is wrapped by errors that say what to install.
var errMissing = errors.New("missing on this machine")

// need skips or fails the test if err says that something cannot be had.
func need(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, errMissing) && os.Getenv("CARPOOL_CLIENTS_REQUIRED") == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// tool finds a program of the system; debian is the package that has it.
func tool(name, debian string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %s (install the package %s, or run install.sh)", errMissing, name, debian)
	}
	return path, nil
}

// nginxBinary is nginx.
func nginxBinary() (string, error) { return systemTool("/usr/sbin/nginx", "nginx-light") }

// systemTool also looks where Debian puts a program, outside a user's PATH.
func systemTool(path, debian string) (string, error) {
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return tool(filepath.Base(path), debian)
}

// nodeBinary returns the binary of a Node.js major version.
func nodeBinary(major int) (string, error) {
	dir, err := runtimes()
	return filepath.Join(dir, "node_modules", fmt.Sprintf("node-%d", major), "bin", "node"), err
}

// runtimes is the directory with the Node.js binaries.
var runtimes = sync.OnceValues(func() (string, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("%w: Node.js binaries (npm has them for linux/amd64 only)", errMissing)
	}
	return npmInstall("runtimes")
})

// libraries is the directory with the client libraries for Node.js.
var libraries = sync.OnceValues(func() (string, error) { return npmInstall("libraries") })

func npmInstall(name string) (string, error) {
	npm, err := tool("npm", "npm")
	if err != nil {
		return "", err
	}
	from := filepath.Join("npm", name)
	manifest, lock := filepath.Join(from, "package.json"), filepath.Join(from, "package-lock.json")
	return cached(name, []string{manifest, lock}, func(dir string) error {
		if err := copyInto(dir, manifest, lock); err != nil {
			return err
		}
		// No scripts: what is installed here is run by these tests only. No
		// links: all runtimes want to be .bin/node.
		out, err := runProgram(installTimeout, os.Environ(), npm, "ci", "--prefix", dir,
			"--ignore-scripts", "--no-bin-links", "--no-audit", "--no-fund", "--loglevel=error")
		if err != nil {
			return fmt.Errorf("npm ci (version 7 or later is needed): %w\n%s", err, out)
		}
		return nil
	})
}

// pythonBinary is the Python of a virtual environment that has requests.
var pythonBinary = sync.OnceValues(func() (string, error) {
	python, err := tool("python3", "python3-venv")
	if err != nil {
		return "", err
	}
	if out, err := runProgram(time.Minute, os.Environ(), python, "-c", "import ensurepip, venv"); err != nil {
		return "", fmt.Errorf("%w: python3's venv (install the package python3-venv): %s", errMissing, out)
	}
	requirements := filepath.Join("python", "requirements.txt")
	dir, err := cached("python", []string{requirements}, func(dir string) error {
		if out, err := runProgram(installTimeout, os.Environ(), python, "-m", "venv", dir); err != nil {
			return fmt.Errorf("python3 -m venv: %w\n%s", err, out)
		}
		pip := filepath.Join(dir, "bin", "pip")
		out, err := runProgram(installTimeout, os.Environ(), pip, "install", "--quiet", "-r", requirements)
		if err != nil {
			return fmt.Errorf("pip install: %w\n%s", err, out)
		}
		return nil
	})
	return filepath.Join(dir, "bin", "python"), err
})

// cached returns the cache's directory for what install makes from the files
// named by inputs, and calls install if it is not there yet. The directory is
// not moved once it is made, because a virtual environment cannot be: a file
// in it tells that it is complete.
func cached(name string, inputs []string, install func(dir string) error) (string, error) {
	key := sha256.New()
	for _, file := range inputs {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		key.Write(data)
	}
	root, err := cacheRoot()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(root, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	dir := filepath.Join(root, fmt.Sprintf("%s-%.6x", name, key.Sum(nil)))
	complete := filepath.Join(dir, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := install(dir); err != nil {
		return "", fmt.Errorf("installing %s: %w", name, err)
	}
	return dir, os.WriteFile(complete, nil, 0o644)
}

func cacheRoot() (string, error) {
	root := os.Getenv("CARPOOL_CLIENTS_CACHE")
	if root == "" {
		user, err := os.UserCacheDir() // $XDG_CACHE_HOME or ~/.cache
		if err != nil {
			return "", err
		}
		root = filepath.Join(user, "carpool-clients")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	return root, os.MkdirAll(root, 0o755)
}

// lock keeps a second run of the tests from installing the same thing.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f.Close, nil
}

func copyInto(dir string, files ...string) error {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
