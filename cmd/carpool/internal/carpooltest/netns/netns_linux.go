package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

const inNamespace = "CARPOOL_TEST_IN_NAMESPACE"

// Own runs the test in a network namespace of its own, as a pod has one, and reports whether this is there: what
// other programs do does not change counts then, and the loopback device has addresses that are not loopback's,
// 10.1.0.1, 10.1.0.2, fd00::1 and fd00::2. It skips the test where none can be made.
func Own(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		setUp(t)
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	t.Logf("%s", out)
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.SkipNow()
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatal(err)
	}
	return false
}

// Two addresses, so that a connection has different ones at its ends, of each family.
var addresses = []string{"10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"}

// setUp brings the loopback device up, with the addresses.
func setUp(t *testing.T) {
	t.Helper()
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	type request struct {
		name  [16]byte
		value [24]byte
	}
	up := request{}
	copy(up.name[:], "lo")
	up.value[0] = syscall.IFF_UP
	control(t, syscall.AF_INET, syscall.SIOCSIFFLAGS, unsafe.Pointer(&up))
	for i, text := range addresses {
		a := netip.MustParseAddr(text)
		if a.Is6() {
			v6 := struct {
				addr   [16]byte
				prefix uint32
				device int32
			}{a.As16(), 128, int32(loopback.Index)}
			control(t, syscall.AF_INET6, syscall.SIOCSIFADDR, unsafe.Pointer(&v6))
			testkit.Eventually(t, "the address can be used", func() bool {
				l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
				if err == nil {
					_ = l.Close()
				}
				return err == nil
			})
			continue
		}
		v4 := request{}
		copy(v4.name[:], "lo:"+string(rune('0'+i)))
		v4.value[0] = syscall.AF_INET
		copy(v4.value[4:], a.AsSlice())
		control(t, syscall.AF_INET, syscall.SIOCSIFADDR, unsafe.Pointer(&v4))
	}
}

func control(t *testing.T, family int, code uintptr, argument unsafe.Pointer) {
	t.Helper()
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), code, uintptr(argument)); errno != 0 {
		t.Fatalf("ioctl %#x: %v", code, errno)
	}
}
