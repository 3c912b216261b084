package carpooltest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// Client is a connection to speak HTTP on.
type Client struct {
	net.Conn
	In *bufio.Reader
}

// Dial connects to a proxy, or to an admin listener.
func Dial(addr string) (*Client, error) {
	c, err := net.DialTimeout("tcp", addr, testkit.Patience)
	if err != nil {
		return nil, err
	}
	return &Client{c, bufio.NewReader(c)}, nil
}

// Reply is an answer that came whole.
type Reply struct {
	*http.Response
	Body string
}

// Ask sends a request without a body and reads the answer.
func (c *Client) Ask(method, target string, fields ...string) (*Reply, error) {
	if err := c.Send(method, target, fields...); err != nil {
		return nil, err
	}
	return c.Receive(method)
}

// Send sends the head of a request.
func (c *Client) Send(method, target string, fields ...string) error {
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	_, err := io.WriteString(c, Head(method, target, fields...))
	return err
}

// Head writes a request's head. An absolute-form target brings its Host along.
func Head(method, target string, fields ...string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		fields = append([]string{"Host: " + host}, fields...)
	}
	return method + " " + target + " HTTP/1.1\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

// Receive reads an answer.
func (c *Client) Receive(method string) (*Reply, error) {
	r, err := http.ReadResponse(c.In, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	return &Reply{r, string(body)}, err
}

// Ended reads until the connection ends and checks that nothing comes before.
func (c *Client) Ended(t testing.TB) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if b, err := c.In.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v, want the end of the connection", b, err)
	}
}

// Once does a request on a connection of its own.
func Once(proxy, method, url string) (*Reply, error) {
	c, err := Dial(proxy)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Ask(method, url, "Connection: close")
}

// Want checks an answer.
func Want(t testing.TB, status int, r *Reply, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", r.StatusCode, status, fmt.Sprintf("%.200q", r.Body))
	}
}
