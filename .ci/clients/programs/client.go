// The client program for Go's net/http; ../doc.go says what it does. Its first
// argument is close, for a connection per call, or keep-alive.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
)

func main() {
	log.SetFlags(0)
	kind, base, calls, tag, uploadFile, uploadHash, downloadHash := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6], os.Args[7]
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = kind == "close"
	client := http.Client{Transport: transport}
	send := func(method, path string, body []byte) []byte {
		request, err := http.NewRequest(method, base+path, bytes.NewReader(body))
		check(err)
		response, err := client.Do(request)
		check(err)
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		check(err)
		if response.StatusCode != http.StatusOK {
			log.Fatalf("%s: %s", response.Status, answer)
		}
		return answer
	}

	n, err := strconv.Atoi(calls)
	check(err)
	for i := range n {
		same(fmt.Sprint("call ", i+1), send("GET", fmt.Sprintf("/echo?tag=%s&n=%d", tag, i+1), nil), fmt.Sprint(tag, " ", i+1))
	}
	upload, err := os.ReadFile(uploadFile)
	check(err)
	same("upload", send("POST", "/upload", upload), uploadHash)
	same("download", fmt.Appendf(nil, "%x", sha256.Sum256(send("GET", "/download", nil))), downloadHash)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func same(what string, got []byte, want string) {
	if string(got) != want {
		log.Fatalf("%s: got %.200q, want %q", what, got, want)
	}
}
