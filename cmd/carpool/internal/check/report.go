package check

import (
	"encoding/json"
	"io"
)

// Reports are what a command prints with --json. Names and meanings of fields do not change; there may be more of them.
type Reports struct {
	// Works is true if all would work.
	Works  bool     `json:"works"`
	Checks []Report `json:"checks"`
}

// Report is what is found of one URL.
type Report struct {
	URL   string `json:"url"`
	Works bool   `json:"works"`
	// Conclusion says in words what would become of a request, Do what to do about it.
	Conclusion string `json:"conclusion"`
	Do         string `json:"do,omitempty"`
	// But says for whom the conclusion does not hold.
	But string `json:"but,omitempty"`
	// Answer is what the app would get of carpool instead of the upstream's answer.
	Answer *Answer `json:"answer,omitempty"`
	// Steps are in the order of a request's way. It ends where one has failed.
	Steps []Step `json:"steps"`
}

// Answer is an answer that carpool makes itself.
type Answer struct {
	Status int    `json:"status"`
	Error  string `json:"error"` // of Proxy-Status
	Text   string `json:"text"`  // the body
	Rule   string `json:"rule,omitempty"`
}

// State is how a step has gone.
type State string

// The states of a step.
const (
	OK      State = "ok"
	Warning State = "warning" // it works, but deserves a look
	Unknown State = "unknown" // nobody was there to ask
	Failed  State = "failed"
)

// Step is a part of a request's way.
type Step struct {
	Step  string `json:"step"`
	State State  `json:"state"`
	// Text are the lines that a person is shown; none of them is for programs.
	Text []string `json:"text"`
	// Facts are the same for programs, of a type for each step.
	Facts any `json:"facts,omitempty"`
}

func (all *Reports) add(r Report) {
	all.Checks = append(all.Checks, r)
	all.Works = all.Works && r.Works
}

func (all *Reports) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(all)
}
