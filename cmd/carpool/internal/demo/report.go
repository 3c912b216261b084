package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The report is for someone who never heard of connection pooling: a word of the
// trade stands only beside its explanation, every number says what it counts, and
// what was simulated is called simulated. No line is longer than lineWidth.
const lineWidth = 78

// nodeLine is a line of the Node table, lineWidth wide.
const nodeLine = "%-33s%8s%9s%9s%12s%7s\n"

func reportIntroduction(w io.Writer, opts options, far distance) {
	paragraph(w, fmt.Sprintf("A client makes %s, %s at a time, and opens a new connection for each, "+
		"as many older programs do: first directly to the server it asks (the upstream), then through carpool.",
		count(opts.requests, "request"), thousands(opts.concurrency)))
	fmt.Fprintln(w)
	reportDistance(w, far, "")
	fmt.Fprintln(w)
}

// reportDistance says what is simulated; more is what else a new connection costs.
func reportDistance(w io.Writer, far distance, more string) {
	paragraph(w, fmt.Sprintf("All of it runs on this machine; the distance is SIMULATED. "+
		"Every answer takes a round trip (there and back) of %s. A new connection costs one round trip more "+
		"(the TCP handshake), %sand %s for looking up the upstream's name. "+
		"Carpool pays the same for each connection it opens to the upstream.",
		setting(far.roundTrip), more, setting(far.lookup)))
}

func reportBuiltIn(w io.Writer, direct, pooled outcome) {
	row := func(name, left, right string) { fmt.Fprintf(w, "  %-38s%12s%20s\n", name, left, right) }
	both := func(name string, cell func(outcome) string) { row(name, cell(direct), cell(pooled)) }
	connections := func(o outcome) string { return thousands(o.connections) }
	fmt.Fprintln(w)
	row("", "directly", "through carpool")
	fmt.Fprintln(w, "  "+strings.Repeat("-", 70))
	both("total time", func(o outcome) string { return seconds(o.took) })
	both("typical request (p50)", func(o outcome) string { return millis(o.percentile(50)) })
	both("slow request, 1 in 100 (p99)", func(o outcome) string { return millis(o.percentile(99)) })
	both("connections opened at the upstream", connections)
	both("name look-ups", connections)
	row("handshakes saved", "-", thousands(max(direct.connections-pooled.connections, 0)))
	both("requests failed", func(o outcome) string { return thousands(o.failed) })
	fmt.Fprintln(w)
	if direct.failed+pooled.failed > 0 {
		return
	}
	paragraph(w, fmt.Sprintf("What happened: directly, each request first waited for a look-up and a handshake: %s of them. "+
		"Through carpool the client still opened %s, but only to carpool beside it, where that costs next to nothing. "+
		"Carpool passed all requests on over %s that it kept open and used again. %s",
		thousands(direct.connections), count(len(pooled.latencies), "connection"),
		count(pooled.connections, "connection"), comparison(direct.percentile(50), pooled.percentile(50))))
	fmt.Fprint(w, `
What to do next:
  1. start carpool beside your program:       carpool
  2. start your program with this variable:   HTTP_PROXY=http://127.0.0.1:3128
To see the same with a real Node program, and with https:  carpool demo --node
`)
}

func reportKeep(w io.Writer, car *sidecar, server *upstream) {
	fmt.Fprintf(w, `
Carpool and the upstream are still running. Try, in another terminal:
  curl -x http://%s http://%s/hello
  curl http://%s/metrics
Ctrl-C ends them.
`, car.proxy, server.addr, car.admin)
}

func reportNodeIntroduction(w io.Writer, opts options, far distance, engine node) {
	paragraph(w, fmt.Sprintf("A Node program (node %s, axios %s) makes %s, %s at a time, to a server (the upstream): "+
		"without keep-alive (a new connection for each request, Node's default before version 19), "+
		"with a keep-alive agent (the program changed to use connections again), and, unchanged, through carpool.",
		engine.version, engine.axiosVersion, count(opts.requests, "request"), thousands(opts.concurrency)))
	fmt.Fprintln(w)
	reportDistance(w, far, "with https yet another (the TLS handshake), ")
	above := fmt.Sprintf(nodeLine, "", "total", "typical", "slow", "connections", "")
	fmt.Fprintf(w, "\n%s\n", strings.TrimRight(above, " \n"))
	fmt.Fprintf(w, nodeLine, "", "time", "(p50)", "(p99)", "at upstream", "failed")
	fmt.Fprintln(w, strings.Repeat("-", lineWidth))
}

func reportNodeRow(w io.Writer, name string, o outcome) {
	fmt.Fprintf(w, nodeLine, name, seconds(o.took), millis(o.percentile(50)),
		millis(o.percentile(99)), thousands(o.connections), thousands(o.failed))
}

// reportNode closes the report: outcomes are in the order of nodeRuns.
func reportNode(w io.Writer, opts options, engine node, outcomes []outcome) {
	paragraph := func(text string) { fmt.Fprintln(w); paragraph(w, text) }
	compare := func(before, after outcome) string {
		return comparison(before.percentile(50), after.percentile(50))
	}
	paragraph("What happened: the rows \"via carpool\" are the very program of the rows without keep-alive, " +
		"started with HTTP_PROXY and HTTPS_PROXY set. It opens its connections to carpool, beside it; " +
		"carpool keeps its own to the upstream open and uses them again. " + compare(outcomes[0], outcomes[2]))
	if plain, pooled := outcomes[3], outcomes[5]; pooled.connections >= opts.requests && opts.requests > opts.concurrency {
		paragraph(fmt.Sprintf("With https, axios %s asks a proxy for a tunnel (CONNECT). What is inside is encrypted, "+
			"so carpool cannot use the connection for another request. "+
			"axios 0.21 to 1.6 leave the encryption to the proxy, and gain with https too.", engine.axiosVersion))
	} else {
		paragraph(fmt.Sprintf("With https, axios %s leaves the encryption to the proxy: carpool checks the upstream's "+
			"certificate and makes the TLS handshake once a connection, not once a request. %s",
			engine.axiosVersion, compare(plain, pooled)))
	}
	fmt.Fprint(w, `
What to do next:
  1. start carpool beside your program:        carpool
  2. start your program with these variables:  HTTP_PROXY=http://127.0.0.1:3128
                                               HTTPS_PROXY=http://127.0.0.1:3128
`)
}

// comparison says in a sentence how a typical request changed.
func comparison(before, after time.Duration) string {
	verdict := "no faster"
	if after > 0 && float64(before)/float64(after) >= 1.05 {
		verdict = fmt.Sprintf("%.1f times as fast", float64(before)/float64(after))
	}
	return fmt.Sprintf("A typical request took %s instead of %s: %s.", millis(after), millis(before), verdict)
}

// paragraph writes text with line breaks between its words.
func paragraph(w io.Writer, text string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > lineWidth:
			fmt.Fprintln(w, line)
			line = word
		default:
			line += " " + word
		}
	}
	fmt.Fprintln(w, line)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// millis writes zero, a percentile of nothing, as a dash.
func millis(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// setting writes a duration that was chosen, not measured: 5 ms, 0.5 ms.
func setting(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', -1, 64) + " ms"
}

// count writes n things in words: 1 request, 2,000 requests.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return thousands(n) + " " + thing
}

// thousands writes n with commas: 2,000.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
