package carpooltest

import (
	"bytes"
	"encoding/json"
	"sync"
)

// Journal collects what carpool writes.
type Journal struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (l *Journal) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

// String returns all that was written.
func (l *Journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// Line returns the first log line with this message, nil if there is none.
func (l *Journal) Line(message string) map[string]any {
	for _, fields := range l.Lines() {
		if fields["msg"] == message {
			return fields
		}
	}
	return nil
}

// Lines returns the log lines that are JSON.
func (l *Journal) Lines() []map[string]any {
	var all []map[string]any
	for line := range bytes.Lines([]byte(l.String())) {
		fields := map[string]any{}
		if json.Unmarshal(line, &fields) == nil {
			all = append(all, fields)
		}
	}
	return all
}
