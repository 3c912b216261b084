package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/ci/e2e/internal/record"
)

// load calls an upstream as old services do: each call is a connection of its
// own, through HTTP_PROXY if that is set. Calls are GET and POST in turn. They
// come at random, independently of each other and of the answers.
//
//	URL      of the upstream
//	RATE     calls a second
//	TIMEOUT  of a call (10s)
func load() error {
	rate, err := strconv.ParseFloat(os.Getenv("RATE"), 64)
	if err != nil || rate <= 0 {
		return fmt.Errorf("RATE=%q: want calls a second", os.Getenv("RATE"))
	}
	timeout, err := duration("TIMEOUT", "10s")
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	client := &http.Client{Transport: transport, Timeout: timeout}
	calls := record.NewLog(time.Now())
	go show(func() (text []byte) {
		calls.Show(func(s *record.Seen) { text = encoded(s) })
		return text
	})
	url := os.Getenv("URL")
	next := time.Now()
	for n := 0; ; n++ {
		next = next.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
		time.Sleep(time.Until(next))
		method := http.MethodGet
		if n%2 == 1 {
			method = http.MethodPost
		}
		go func() {
			sent := time.Now()
			pod, failure := call(client, method, url)
			calls.Note(method, sent, time.Since(sent), pod, failure)
		}()
	}
}

// call returns the name of the pod that answered, or why there is none.
func call(client *http.Client, method, url string) (pod, failure string) {
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(`{"order": 1}`)
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return "", err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return "", plain(err.Error())
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return "", plain(err.Error())
	case response.StatusCode != http.StatusOK:
		return "", plain(fmt.Sprintf("%d %s", response.StatusCode, text))
	}
	return string(text), ""
}

// particular is what differs in errors of one kind.
var particular = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+(:\d+)?`)

// plain returns the text of an error without addresses, in one line.
func plain(text string) string {
	text = particular.ReplaceAllString(strings.Join(strings.Fields(text), " "), "ADDRESS")
	return text[:min(len(text), 200)]
}
