package report

import (
	"fmt"
	"os"
	"strings"
)

// Replace puts sections between the markers that name them, <!-- compare: NAME --> and <!-- /compare -->. A text without
// any of them is an error, and so is a marker of another name or without an end.
func Replace(text string, sections map[string]string) (string, error) {
	const begin, end, closed = "<!-- compare: ", "<!-- /compare -->", " -->"
	var out strings.Builder
	for found := false; ; found = true {
		before, rest, ok := strings.Cut(text, begin)
		if !ok {
			if !found {
				return "", fmt.Errorf("it has no marker %sNAME%s", begin, closed)
			}
			out.WriteString(text)
			return out.String(), nil
		}
		name, rest, ok := strings.Cut(rest, closed)
		section, known := sections[name]
		if !ok || !known {
			return "", fmt.Errorf("there is no section %.40q", name)
		}
		_, after, ok := strings.Cut(rest, end)
		if !ok {
			return "", fmt.Errorf("section %s has no %s", name, end)
		}
		out.WriteString(before + begin + name + closed + "\n" + strings.Trim(section, "\n") + "\n" + end)
		text = after
	}
}

// Rewrite replaces sections in a file.
func Rewrite(path string, sections map[string]string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := Replace(string(old), sections)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
