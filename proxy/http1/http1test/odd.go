// Package http1test holds messages that tests of several packages are made of.
package http1test

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// Verdict says what becomes of an answer.
type Verdict string

// The verdicts. What they mean stands at the head of odd-answers.txt.
const (
	Kept    Verdict = "kept"
	Once    Verdict = "once"
	Cut     Verdict = "cut"
	Refused Verdict = "refused"
)

// Answer is an odd answer to a GET, and what is made of it.
type Answer struct {
	Name    string
	Verdict Verdict
	// Closes says that the upstream closes behind the answer.
	Closes bool
	// Sent is what the upstream sends, Seen what a client of HTTP/1.1 gets of it;
	// nothing where it is refused.
	Sent, Seen string
}

//go:embed odd-answers.txt
var oddAnswers string

// OddAnswers returns the rows of odd-answers.txt. An error says which line is
// none.
func OddAnswers() ([]Answer, error) {
	var rows []Answer
	var row *Answer // the one that lines belong to
	for i, line := range strings.Split(oddAnswers, "\n") {
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "\t") && row != nil:
			text, err := strconv.Unquote(line[1:])
			if err != nil {
				return nil, fmt.Errorf("odd-answers.txt, line %d: %w", i+1, err)
			}
			if row.Sent == "" {
				row.Sent = text
			}
			if row.Verdict != Refused {
				row.Seen = text
			}
		default:
			words := strings.Fields(line)
			if len(words) < 2 {
				return nil, fmt.Errorf("odd-answers.txt, line %d is no NAME VERDICT", i+1)
			}
			rows = append(rows, Answer{Name: words[0], Verdict: Verdict(words[1]), Closes: len(words) > 2})
			row = &rows[len(rows)-1]
		}
	}
	return rows, nil
}
