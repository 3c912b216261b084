package proc_test

import (
	"testing"

	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
)

func TestMachine(t *testing.T) {
	got, err := proc.ParseMachine([]byte("cpu  100 20 30 4000 50 6 7 8 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n"))
	if want := (proc.Machine{Busy: 163, Steal: 8}); err != nil || got != want {
		t.Errorf("%+v, %v; not %+v: idle and iowait are not busy, guests are in user already", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu 1 2 x 4 5 6 7 8\n"} {
		if _, err := proc.ParseMachine([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestPSS(t *testing.T) {
	got, err := proc.ParsePSS([]byte("00400000-7fff rollup\nRss:  2000 kB\nPss:                1234 kB\nPss_Dirty:  9 kB\n"))
	if err != nil || got != 1234<<10 {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", "Rss: 1 kB\n", "Pss: 1 MB\n", "Pss: x kB\n"} {
		if _, err := proc.ParsePSS([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestSwitches(t *testing.T) {
	if got, err := proc.ParseSwitches([]byte("123456 789 42\n")); err != nil || got != 42 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := proc.ParseSwitches([]byte("1 2\n")); err == nil {
		t.Error("two figures were read")
	}
}

func TestModel(t *testing.T) {
	if got := proc.ParseModel([]byte("processor\t: 0\nmodel name\t: AMD EPYC: 7B13\nmodel name\t: other\n")); got != "AMD EPYC: 7B13" {
		t.Errorf("%q", got)
	}
	if got := proc.ParseModel([]byte("processor\t: 0\n")); got != "?" {
		t.Errorf("%q", got)
	}
}
