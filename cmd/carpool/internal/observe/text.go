package observe

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
)

// most is how many destinations the text names.
const most = 20

// write prints the report for people.
func (r Report) write(to io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Looked for %.0f seconds. %s\n\n", r.Seconds, r.howCounted())
	r.table(&b)
	r.verdict(&b)
	r.runtimes(&b)
	_, err := to.Write(b.Bytes())
	return err
}

// howCounted says how far the counts can be relied on.
func (r Report) howCounted() string {
	switch r.Counted {
	case countedAll:
		return "The kernel told of each connection, so the counts are exact."
	case countedLooks:
		return "The connections were found by looking, and by the kernel's count none was missed."
	}
	text := fmt.Sprintf("The connections were found by looking. By the kernel's count %s more were opened: too short to be found, and closed by the other side.",
		thousands(float64(r.Unseen)))
	if r.Unplaced > 0 {
		return text + " Where they led is not known, so the table is without them."
	}
	return text + " They are shared out among the destinations in proportion to the short ones that were found."
}

// table prints the destinations.
func (r Report) table(b *bytes.Buffer) {
	if len(r.Destinations) == 0 {
		fmt.Fprintln(b, "No connection to another host was open or opened.")
		return
	}
	rows := [][]string{{"destination", "opened/min", "TIME_WAIT", "at once", "carpool opens/min", "saved/min", "round trip", "waiting saved/min"}}
	for _, d := range r.Destinations[:min(len(r.Destinations), most)] {
		row := []string{d.Address.String(), thousands(d.Opened), strconv.Itoa(d.TimeWait), strconv.Itoa(d.AtOnce)}
		switch {
		case d.Protocol != protocolHTTP:
			row = append(row, notPooled[d.Protocol])
		case d.RoundTrip > 0:
			row = append(row, thousands(d.WouldOpen), thousands(d.Saved), timeOf(d.RoundTrip), "about "+timeOf(d.Waiting))
		default:
			row = append(row, thousands(d.WouldOpen), thousands(d.Saved), "-", "-")
		}
		rows = append(rows, row)
	}
	align(b, rows)
	if more := len(r.Destinations) - most; more > 0 {
		fmt.Fprintf(b, "and %d more with less to gain (--json has all)\n", more)
	}
}

// align writes cells in columns, to the right. Of a row that is cut short the last cell is a remark, and may be longer.
func align(b *bytes.Buffer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			if len(row) == len(width) || i < len(row)-1 {
				width[i] = max(width[i], len(cell))
			}
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString("  " + strings.Repeat(" ", max(width[i]-len(cell), 0)) + cell)
		}
		b.WriteByte('\n')
	}
}

var notPooled = map[string]string{
	protocolTLS:     "TLS: passed on as it is",
	protocolOther:   "not HTTP, by its port",
	protocolRefused: "carpool refuses it",
}

// verdict says it plainly.
func (r Report) verdict(b *bytes.Buffer) {
	fmt.Fprintln(b)
	switch r.Verdict {
	case gain:
		fmt.Fprintf(b, "carpool would save about %s handshakes a minute", thousands(r.Saved))
		if r.WaitingSaved > 0 {
			fmt.Fprintf(b, ", and about %s of waiting in them.\n"+
				"The waiting is an estimate: a round trip for each handshake. Name look-ups and TLS come on top", timeOf(r.WaitingSaved))
		}
		fmt.Fprintln(b, ".\nEach connection is taken for one request to a server that keeps connections open; one that does not leaves less.")
	case nothing:
		fmt.Fprint(b, "Nothing to gain: ")
		if r.Unplaced > 0 {
			fmt.Fprintln(b, "as far as it is known where connections lead. Look for longer.")
		} else {
			fmt.Fprintln(b, "the app keeps its connections to ports of plain HTTP open, or hardly uses them.")
		}
	case idle:
		fmt.Fprintln(b, "Nothing is known: no connection to a port of plain HTTP was seen. Look while the app works.")
	}
	if r.ProxyThere {
		fmt.Fprintf(b, "Something listens on port %d already. If it is carpool, these are its own connections and what goes past it.\n", usualPort)
	}
}

// runtimes says what runs and what to set.
func (r Report) runtimes(b *bytes.Buffer) {
	fmt.Fprintln(b)
	if len(r.Processes) == 0 {
		fmt.Fprintln(b, "No process of a known runtime can be seen from here, so what to set is not known: the README's table of clients has it.\n"+
			"(kubectl debug shows the processes of a container with --target=CONTAINER.)")
		return
	}
	if r.Verdict != gain {
		return
	}
	advices := bypass.Advices("127.0.0.1", strconv.Itoa(usualPort))
	for _, p := range r.Processes {
		fmt.Fprintf(b, "%s runs here (process %s).", p.Runtime, p.numbers())
		if p.Proxy != "" {
			fmt.Fprintf(b, " It has a proxy set already: %s.", p.Proxy)
		}
		fmt.Fprintln(b)
		for _, a := range advices {
			if !p.advisedBy(a) {
				continue
			}
			fmt.Fprintf(b, "  %s\n    set %s\n", a.Runtime, strings.Join(a.Set, "\n        "))
			if a.Note != "" {
				fmt.Fprintf(b, "    %s\n", a.Note)
			}
		}
		if p.Annotation != "" {
			fmt.Fprintf(b, "  In Kubernetes the annotation %s does it.\n", p.Annotation)
		}
	}
}

// timeOf writes milliseconds.
func timeOf(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2g ms", ms)
}

// thousands writes a number without a fraction, and with commas.
func thousands(x float64) string {
	digits := strconv.FormatFloat(x, 'f', 0, 64)
	if x > 0 && x < 0.5 {
		return "<1"
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
