package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// serviceLink matches the NAME=value pairs that the kubelet puts into every container for a Service named carpool or
// carpool-… (enableServiceLinks, on by default). Somebody's CARPOOL_PORT=3128 is none of them and deserves its warning.
var serviceLink = regexp.MustCompile(`^CARPOOL(_[A-Z0-9_]+)?_(` +
	`SERVICE_HOST=|` +
	`SERVICE_PORT(_[A-Z0-9_]+)?=|` +
	`PORT=(tcp|udp|sctp)://|` +
	`PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)

// Unknown is a variable that begins with CARPOOL_ but is no setting.
type Unknown struct {
	Name  string // with the prefix, as it was found
	Meant string // the setting that has nearly this name; empty if there is none
}

// Error says what is wrong, for those who refuse unknown names.
func (u Unknown) Error() string { return u.say("") }

// Warning says what becomes of it, for those who go on.
func (u Unknown) Warning() string { return u.say(" is ignored") }

func (u Unknown) say(fate string) string {
	line := "unknown variable " + quote(u.Name) + fate
	if u.Meant != "" {
		line += "; did you mean " + u.Meant + "?"
	}
	return line
}

// unknown returns the variables of env that are neither settings nor service links, sorted by name.
func unknown(env map[string]string) []Unknown {
	known := names()
	var found []Unknown
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if slices.Contains(known, name) || serviceLink.MatchString(name+"="+env[name]) {
			continue
		}
		found = append(found, Unknown{name, nearest(name, known)})
	}
	return found
}

// nearest returns the known name that name was probably meant to be, or "". A third of the letters may be wrong: that
// finds MAX_CONNECTIONS_PER_HOST, and finds nothing for a name that somebody made up.
func nearest(name string, known []string) string {
	if len(name) > 100 {
		return ""
	}
	name = strings.ToUpper(name)
	best, least := "", len(name)
	for _, k := range known {
		if d := distance(name, k); d < least && d <= (len(k)-len(prefix))/3 {
			best, least = k, d
		}
	}
	return best
}

// distance is Levenshtein's: how many bytes must be inserted, deleted or replaced to make b out of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
