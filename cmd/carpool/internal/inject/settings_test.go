package inject_test

import (
	"strings"
	"testing"
)

// Row O6: whatever is wrong with the settings is told at once.
func TestO6BadFixedAndUnknownSettingsAreAllNamed(t *testing.T) {
	got := run(aPod(), "inject", "-f", "-", "--set=MAX_IDEL_PER_HOST=5", "--set=IDLE_TIMEOUT=9", "--set=LISTEN=:1", "--set=FOO=1")
	if got.code != 2 || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{
		`unknown variable "CARPOOL_MAX_IDEL_PER_HOST"; did you mean CARPOOL_MAX_IDLE_PER_HOST?`,
		`unknown variable "CARPOOL_FOO"`,
		"CARPOOL_LISTEN is fixed in a pod",
		"give a unit: 9s",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("no %q in:\n%s", want, got.stderr)
		}
	}
	if strings.Contains(got.stderr, "is ignored") {
		t.Errorf("it says that something is ignored, which is not so:\n%s", got.stderr)
	}
}
