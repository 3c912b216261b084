package proxy_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1/http1test"
)

// P6 and P6b: odd answers that leave no doubt about where they end are passed
// on well-formed; others are refused.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	rows, err := http1test.OddAnswers()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			oddAnswer(t, row)
		})
	}
}

func oddAnswer(t *testing.T, row http1test.Answer) {
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	_ = up.trySend(row.Sent)
	if row.Closes {
		up.shut()
	}
	switch {
	case row.Verdict == http1test.Refused:
		client.problem(502)
	default:
		client.want(row.Seen)
		if row.Verdict == http1test.Cut {
			client.cut()
		}
	}
	if strings.Contains(row.Seen, "Connection: close\r\n") {
		client.end()
		client = r.client()
	} else if row.Verdict == http1test.Cut {
		client = r.client()
	}
	if row.Verdict == http1test.Kept {
		o.exchange(client, up)
		o.served(1)
		return
	}
	o.exchange(client, nil)
	up.cut()
	o.served(2)
}
