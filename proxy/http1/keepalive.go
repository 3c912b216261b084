package http1

import "bytes"

// KeepAliveHint returns what a server says of its connection in "Keep-Alive:
// timeout=5, max=100": seconds it may idle, and requests it takes; -1 where it
// does not say, and the least where it says several things. RFC 9112 does not
// know the field and servers differ: semicolons and blanks part its parameters
// as well as commas do, and a time can have a unit.
func (r *Response) KeepAliveHint() (timeout, max int64) {
	timeout, max = -1, -1
	if !r.Has.Of(KeepAlive) {
		return timeout, max
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.Name != KeepAlive {
			continue
		}
		for list := r.Value(f); len(list) > 0; {
			var name, value []byte
			name, value, list = parameter(list)
			switch {
			case EqualFold(name, "timeout"):
				timeout = least(timeout, seconds(value))
			case EqualFold(name, "max"):
				if n, ok := parseDecimal(value); ok {
					max = least(max, n)
				}
			}
		}
	}
	return timeout, max
}

// least returns the smaller of two numbers of which -1 is none.
func least(a, b int64) int64 {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

const (
	blanks     = " \t"
	separators = ",;" + blanks
)

// parameter cuts the first name=value off a list. The value is without quotes,
// and empty if there is none.
func parameter(list []byte) (name, value, rest []byte) {
	list = bytes.TrimLeft(list, separators)
	name, rest = cutAny(list, "="+separators)
	behind := bytes.TrimLeft(rest, blanks)
	if len(behind) == 0 || behind[0] != '=' {
		return name, nil, rest
	}
	value, rest = cutAny(bytes.TrimLeft(behind[1:], blanks), separators)
	return name, bytes.Trim(value, `"`), rest
}

func cutAny(b []byte, chars string) (before, rest []byte) {
	if i := bytes.IndexAny(b, chars); i >= 0 {
		return b[:i], b[i:]
	}
	return b, nil
}

// seconds reads a time in whole seconds, rounded down; -1 for none. Without a
// unit, or with one that begins with an s, it is in seconds.
func seconds(v []byte) int64 {
	i := 0
	for i < len(v) && class[v[i]]&isDigit != 0 {
		i++
	}
	n, ok := parseDecimal(v[:i])
	unit := v[i:]
	if len(unit) > 0 && unit[0] == '.' {
		unit = bytes.TrimLeft(unit[1:], "0123456789")
	}
	switch {
	case !ok:
		return -1
	case len(unit) == 0, unit[0]|0x20 == 's':
		return n
	case EqualFold(unit, "ms"):
		return n / 1000
	}
	return -1
}
