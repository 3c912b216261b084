package inject_test

import (
	"strings"
	"testing"
)

// Manifests have quantities as people write them, not as the API server does.
func TestTheClassGuaranteedIsSeenHoweverQuantitiesAreWritten(t *testing.T) {
	for _, c := range []struct {
		cpuLimit, cpuRequest, memoryLimit, memoryRequest string
		guaranteed                                       bool
	}{
		{"1", "1000m", "1Gi", "1024Mi", true},
		{"0.5", "500m", "1e9", "1G", true},
		{"'1.'", ".001k", "1073741824", "1Gi", true},
		{"1", "1", "1E", "1e18", true},
		{"1", "1e3m", "1Gi", "1Gi", true}, // no quantity: for the API server to refuse
		{"1", "999m", "1Gi", "1Gi", false},
		{"1", "1", "1Gi", "1G", false},
		{"1", "1", "1024Ki", "1000Ki", false},
	} {
		in := aPod() + "      resources: {limits: {cpu: " + c.cpuLimit + ", memory: " + c.memoryLimit + "}, requests: {cpu: " + c.cpuRequest + ", memory: " + c.memoryRequest + "}}\n"
		got := run(in, "inject", "-f", "-")
		if got.code != 0 || strings.Contains(got.stdout, "memory: \"32Mi\"") == c.guaranteed {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

func TestAPortIsTakenBackWithTheSidecar(t *testing.T) {
	in := annotated(prefix+"port: '13128'", prefix+"java: 'true'")
	got := run(in, "inject", "-f", "-")
	if got.code != 0 || !strings.Contains(got.stdout, "http://127.0.0.1:13128") || !strings.Contains(got.stdout, "proxyPort=13128") {
		t.Fatalf("%+v", got)
	}
	if back := run(got.stdout, "uninject", "-f", "-"); back.code != 0 || back.stdout != in {
		t.Errorf("%+v, want\n%s", back, in)
	}
	if got = run(aPod(), "inject", "--port", "13128", "--admin-port", "19128", "-f", "-"); !strings.Contains(got.stdout, "containerPort: 19128") ||
		!strings.Contains(got.stdout, "value: \"127.0.0.1:13128\"") {
		t.Errorf("%+v", got)
	}
}
