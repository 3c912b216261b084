package check_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestAnAddressThatDoesNotAnswerIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	at := free(t)
	testkit.Blackhole(t, at)
	code, r := l.report([]string{"CARPOOL_DIAL_TIMEOUT=300ms"}, "http://"+at.String()+"/")
	if code != 1 || r.Answer == nil || r.Answer.Status != 504 || r.Answer.Error != "connection_timeout" || !strings.Contains(r.Do, "CARPOOL_DIAL_TIMEOUT=300ms") {
		t.Errorf("%d, %+v", code, r)
	}
}
