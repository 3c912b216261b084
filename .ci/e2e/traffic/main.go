// Command traffic is what runs in the pods of the tests of upstreams that move:
//
//	traffic upstream   answers with its pod's name, and ends as upstreams do
//	traffic load       calls an upstream and writes down what became of it
//	traffic names      a name server that passes questions on and counts them
//
// Each says on port 8081, as JSON at /seen, what it has seen. Settings are
// environment variables; the file of each names them.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	commands := map[string]func() error{"upstream": upstream, "load": load, "names": names}
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		log.Fatal("usage: traffic upstream|load|names")
	}
	if err := commands[os.Args[1]](); err != nil {
		log.Fatal(err)
	}
}

// show serves what a function returns at /seen.
func show(seen func() []byte) {
	mux := http.NewServeMux()
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(seen())
	})
	log.Fatal(http.ListenAndServe(":8081", mux))
}

func encoded(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return text
}

// duration reads a setting.
func duration(name, byDefault string) (time.Duration, error) {
	d, err := time.ParseDuration(cmp.Or(os.Getenv(name), byDefault))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}
