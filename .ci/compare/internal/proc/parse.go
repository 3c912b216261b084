// Package proc reads what the kernel accounts of processes and of the machine, and starts and ends processes.
package proc

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// TicksPerSecond is the unit of /proc/stat. It is 100 wherever Linux shows it to programs (USER_HZ).
const TicksPerSecond = 100

// A Machine is what all CPUs have done since the start, in ticks.
type Machine struct {
	Busy, Steal int64
}

// ParseMachine reads the first line of /proc/stat, "cpu user nice system idle iowait irq softirq steal …".
func ParseMachine(stat []byte) (Machine, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return Machine{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var v [8]int64
	for i := range v {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return Machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
		v[i] = n
	}
	return Machine{Busy: v[0] + v[1] + v[2] + v[5] + v[6], Steal: v[7]}, nil
}

// ParsePSS returns the proportional set size, in bytes, that /proc/PID/smaps_rollup shows.
func ParsePSS(rollup []byte) (int64, error) {
	for line := range strings.Lines(string(rollup)) {
		rest, ok := strings.CutPrefix(line, "Pss:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("smaps_rollup has %q", line)
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		return kb << 10, err
	}
	return 0, fmt.Errorf("smaps_rollup has no Pss")
}

// ParseSwitches returns how often a thread was given a CPU: the third figure of /proc/PID/task/TID/schedstat.
func ParseSwitches(schedstat []byte) (int64, error) {
	fields := strings.Fields(string(schedstat))
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat has %q", schedstat)
	}
	return strconv.ParseInt(fields[2], 10, 64)
}

// ParseModel returns the first CPU's name in /proc/cpuinfo, "?" where there is none (arm64).
func ParseModel(cpuinfo []byte) string {
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}
