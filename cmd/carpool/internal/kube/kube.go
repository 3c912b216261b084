// Package kube speaks to the Kubernetes API server from within a pod: a handful of
// REST calls, with the token of the pod's ServiceAccount. It knows no kinds; who
// calls says where something is and what of it is to be read.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ServiceAccount is where the kubelet puts what a pod needs to speak to the API
// server: token and ca.crt.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	// timeout bounds a call.
	timeout = 10 * time.Second
	// largest bounds an answer: a page of a list is below a megabyte.
	largest = 16 << 20
)

// JSONPatch is the content type of RFC 6902.
const JSONPatch = "application/json-patch+json"

// Client speaks to one API server. It is safe for concurrent use.
type Client struct {
	base  string
	token string // the file, which the kubelet renews
	http  *http.Client
}

// New returns a client for the API server that the environment, a list of
// NAME=value, names as the kubelet does. dir is as [ServiceAccount].
func New(environ []string, dir string) (*Client, error) {
	host, port := "", ""
	for _, kv := range environ {
		switch name, value, _ := strings.Cut(kv, "="); name {
		case "KUBERNETES_SERVICE_HOST":
			host = value
		case "KUBERNETES_SERVICE_PORT":
			port = value
		}
	}
	if host == "" || port == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this runs in a pod only")
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", filepath.Join(dir, "ca.crt"))
	}
	return &Client{
		base: "https://" + net.JoinHostPort(host, port), token: filepath.Join(dir, "token"),
		http: &http.Client{Timeout: timeout, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: timeout,
		}},
	}, nil
}

// A StatusError is an answer that is no success.
type StatusError struct {
	Code    int
	Message string // the API server's
}

func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", e.Code, e.Message))
}

// IsNotFound reports whether an error says that there is no such object.
func IsNotFound(err error) bool { return is(err, http.StatusNotFound) }

// IsConflict reports whether an error says that an object has changed since it was
// read. A JSON Patch whose test fails is answered by 422.
func IsConflict(err error) bool {
	return is(err, http.StatusConflict) || is(err, http.StatusUnprocessableEntity)
}

func is(err error, code int) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == code
}

// Get reads what is at a path, query included.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, "application/json", "", nil, into)
}

// Metadata reads what is at a path, of which the metadata alone comes.
func (c *Client) Metadata(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "", nil, into)
}

// Put writes an object. One that has changed since its resourceVersion is a conflict.
func (c *Client) Put(ctx context.Context, path string, object, into any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPut, path, "application/json", "application/json", body, into)
}

// Patch changes an object by a [JSONPatch].
func (c *Client) Patch(ctx context.Context, path string, patch, into any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPatch, path, "application/json", JSONPatch, body, into)
}

func (c *Client) do(ctx context.Context, method, path, accept, contentType string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	token, err := os.ReadFile(c.token)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Accept", accept)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, largest))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		var status struct{ Message string }
		_ = json.Unmarshal(answer, &status) // without a message the code has to do
		return fmt.Errorf("%s %s: %w", method, path, &StatusError{response.StatusCode, status.Message})
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
