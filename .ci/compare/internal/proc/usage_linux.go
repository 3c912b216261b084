package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// CPU returns what a process has run for, on all its threads, those that have ended too. It reads the process's CPU
// clock (clock_getcpuclockid(3)), which is exact to the nanosecond, where /proc/PID/stat counts ticks of 10 ms and
// schedstat forgets threads that have ended.
func CPU(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of a whole process
	clock := ^pid<<3 | sched
	var at syscall.Timespec
	if _, _, e := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(int32(clock)), uintptr(unsafe.Pointer(&at)), 0); e != 0 {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, e)
	}
	return time.Duration(at.Nano()), nil
}

// Tree returns a process and its descendants.
func Tree(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, task := range tasks {
			children, _ := os.ReadFile(task) // gone: it has none any more
			for _, child := range strings.Fields(string(children)) {
				if n, err := strconv.Atoi(child); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// A Usage is what a process and its descendants have used.
type Usage struct {
	CPU      time.Duration
	Switches int64 // how often a thread of theirs was given a CPU; threads that have ended do not count
}

// Used returns the usage of a tree of processes.
func Used(pids []int) Usage {
	var u Usage
	for _, pid := range pids {
		if cpu, err := CPU(pid); err == nil {
			u.CPU += cpu
		}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			if stat, err := os.ReadFile(task); err == nil {
				n, _ := ParseSwitches(stat)
				u.Switches += n
			}
		}
	}
	return u
}

// PSS returns the proportional set size of processes in bytes: memory of their own, and their part of what they share.
// The kernel's own memory, such as socket buffers, is not in it.
func PSS(pids []int) (sum int64, err error) {
	for _, pid := range pids {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := ParsePSS(rollup)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Now returns what the machine has done.
func Now() (Machine, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	return ParseMachine(stat)
}

// A Set is a set of CPUs.
type Set []int

// Allowed returns the CPUs that this process may use.
func Allowed() (Set, error) {
	var mask [128]uint64
	n, _, e := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if e != 0 {
		return nil, fmt.Errorf("sched_getaffinity: %w", e)
	}
	var all Set
	for cpu := range int(n) * 8 {
		if mask[cpu/64]&(1<<(cpu%64)) != 0 {
			all = append(all, cpu)
		}
	}
	return all, nil
}

// pinThread confines the calling thread, and the processes that it starts, to the set.
func (s Set) pinThread() error {
	var mask [128]uint64
	for _, cpu := range s {
		mask[cpu/64] |= 1 << (cpu % 64)
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if e != 0 {
		return fmt.Errorf("sched_setaffinity %v: %w", s, e)
	}
	return nil
}

func (s Set) String() string {
	var names []string
	for _, cpu := range s {
		names = append(names, strconv.Itoa(cpu))
	}
	return strings.Join(names, ",")
}
