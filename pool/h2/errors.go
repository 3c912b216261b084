package h2

import (
	"errors"
	"fmt"
	"syscall"
)

// Code says why a stream or a connection was ended (RFC 9113 section 7).
type Code uint32

// The codes that are sent, or that make a difference.
const (
	NoError        Code = 0
	codeProtocol   Code = 1
	codeInternal   Code = 2
	codeFlow       Code = 3
	codeClosed     Code = 5
	codeFrameSize  Code = 6
	codeRefused    Code = 7
	Cancel         Code = 8
	codeComp       Code = 9
	codeCalm       Code = 11
	http11Required Code = 13
)

var (
	// ErrSilent is why a connection is over of which the peer gives no sign of life.
	ErrSilent = fmt.Errorf("h2: the peer answers no ping: %w", syscall.ETIMEDOUT)
	// ErrClosed is why a connection is over that was closed here.
	ErrClosed = errors.New("h2: closed")
	// ErrInterrupted is what a stream fails with after Interrupt.
	ErrInterrupted = errors.New("h2: interrupted")
	// ErrAnswered is what sending fails with when the peer has ended the stream.
	ErrAnswered = errors.New("h2: the peer has ended the stream")
)

// Error is the end of a connection by a rule that the peer broke.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return "h2: " + e.Text }

func connError(code Code, text string) error { return &Error{code, text} }

// ResetError is the end of one stream.
type ResetError struct {
	Code Code
	// Remote says that the peer has ended it, be it with the connection.
	Remote bool
	// Unprocessed says that the peer has done nothing of what was asked of it (RFC 9113
	// section 8.7).
	Unprocessed bool
	// Text says in one line what was wrong; "" if the peer has not said.
	Text string
}

func (e *ResetError) Error() string {
	if e.Text != "" {
		return "h2: " + e.Text
	}
	return fmt.Sprintf("h2: the stream was reset with code %d", e.Code)
}

// WantsHTTP1 reports whether the peer asks for the request to be made in HTTP/1.1.
func (e *ResetError) WantsHTTP1() bool { return e.Code == http11Required }

// Unprocessed reports whether err says that nothing of a request was carried out.
func Unprocessed(err error) bool {
	var r *ResetError
	return errors.As(err, &r) && r.Unprocessed
}
