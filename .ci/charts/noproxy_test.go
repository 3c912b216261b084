package charts_test

import (
	"strings"
	"testing"
)

// What a pod's annotation cannot have, values cannot have either.
func TestNoProxyEntriesThatEndSomeClientsAreRefusedInValues(t *testing.T) {
	for _, entry := range []string{"[::1]", "fd00::/8", "a;b", "http://a", "a b", "a,b", "a:b", "*", "10.*", "10.0.0.0/33", ""} {
		if _, err := render(load(t, appChart), values(t, "noProxy: ['"+entry+"']")); err == nil || !strings.Contains(err.Error(), "noProxy") {
			t.Errorf("carpool takes %q: %v", entry, err)
		}
		if _, err := render(load(t, teamChart), values(t, "carpool: {noProxy: ['"+entry+"']}")); err == nil || !strings.Contains(err.Error(), "noProxy: want names") {
			t.Errorf("carpool-lib takes %q: %v", entry, err)
		}
	}
	const good = "[a, .b.example.com, '*.c', 'd:80', 10.0.0.1, 10.0.0.0/8, 'fd00::1', '$(HOST_IP)']"
	mustRender(t, load(t, appChart), values(t, "noProxy: "+good))
	mustRender(t, load(t, teamChart), values(t, "carpool: {noProxy: "+good+"}"))
}
