package load

import (
	"encoding/json"
	"fmt"
	"io"
)

// Serve reads a Spec and then Commands, as JSON, and carries them out until there are no more. It writes a line "done" as
// soon as a command is, so that whoever reads CPU clocks can do so at once, and then the Result in another line.
func Serve(in io.Reader, out io.Writer) error {
	orders := json.NewDecoder(in)
	var spec Spec
	if err := orders.Decode(&spec); err != nil {
		return fmt.Errorf("no spec: %w", err)
	}
	g, err := New(spec)
	if err != nil {
		return err
	}
	for {
		var c Command
		if err := orders.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("no command: %w", err)
		}
		result, err := g.Do(c)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, "done\n"); err != nil {
			return err
		}
		told := *result
		told.Latency, told.Late = result.Latency.Trimmed(), result.Late.Trimmed()
		if err := json.NewEncoder(out).Encode(told); err != nil {
			return err
		}
	}
}
