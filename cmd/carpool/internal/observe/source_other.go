//go:build !linux

package observe

import "errors"

func open() (source, error) {
	return nil, errors.New("only Linux tells of its sockets: run it in a pod or a Linux machine")
}
