package check

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// column is where the lines of a step begin.
const column = 14

// width is how long lines are at most where they have spaces.
var width = 110

// marks stand before a step's name.
var marks = map[State]string{OK: " ", Unknown: " ", Warning: "!", Failed: "✗"}

// writeText writes a report for a person: the conclusion first, and then the facts in the order of a request's way.
func writeText(w io.Writer, r Report) {
	var b strings.Builder
	wrap(&b, "", "  ", r.URL+" "+r.Conclusion)
	for _, more := range []string{r.But, r.Do} {
		if more != "" {
			wrap(&b, "  ", "  ", more)
		}
	}
	b.WriteByte('\n')
	for _, s := range r.Steps {
		head := fmt.Sprintf("%s %-*s", marks[s.State], column-2, s.Step)
		for _, line := range s.Text {
			wrap(&b, head, strings.Repeat(" ", column+2), line)
			head = strings.Repeat(" ", column)
		}
	}
	b.WriteByte('\n')
	_, _ = io.WriteString(w, b.String())
}

// wrap writes a line, broken at spaces, behind a head, and further lines of it behind another.
func wrap(b *strings.Builder, head, next, line string) {
	b.WriteString(head)
	used := utf8.RuneCountInString(head)
	for i, word := range strings.Split(line, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > width:
			b.WriteString("\n" + next)
			used = len(next)
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	b.WriteByte('\n')
}

// short writes how long something took.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// seconds writes a time that is counted in seconds.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%d s", int64(d.Round(time.Second).Seconds()))
}

// ms is a time for programs.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	plural := noun + "s"
	if strings.HasSuffix(noun, "s") {
		plural = noun + "es"
	}
	return fmt.Sprintf("%d %s", n, plural)
}

// bounded are the first lines of a list, and how many more there were.
func bounded(lines []string, most int) []string {
	if len(lines) <= most {
		return lines
	}
	return append(lines[:most:most], fmt.Sprintf("and %d more", len(lines)-most))
}

// sentence is what to do, with its first letter large.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
