package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
)

// stricter names for plain types the type of this package that reads their text, because envconfig's own reading has
// traps: 010 is 8, durations may be negative, numbers may be NaN.
var stricter = map[reflect.Type]reflect.Type{
	reflect.TypeFor[time.Duration](): reflect.TypeFor[duration](),
	reflect.TypeFor[int]():           reflect.TypeFor[count](),
	reflect.TypeFor[float64]():       reflect.TypeFor[share](),
}

// wantOf says what is expected of the types that are not of this package, whose own errors do not.
var wantOf = map[reflect.Type]string{
	reflect.TypeFor[bool]():          "true or false",
	reflect.TypeFor[zapcore.Level](): "debug, info, warn or error",
}

type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	if v, err := time.ParseDuration(string(text)); err == nil && v >= 0 {
		*d = duration(v)
		return nil
	}
	if v, err := time.ParseDuration(string(text) + "s"); err == nil && v >= 0 {
		return fmt.Errorf("want a duration; give a unit: %vs", v.Seconds())
	}
	return errors.New("want a duration of 0 or more, e.g. 500ms, 50s or 2m")
}

type count int

func (c *count) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return errors.New("want a whole number of 0 or more, e.g. 100")
	}
	*c = count(v)
	return nil
}

type share float64

func (s *share) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(0 <= v && v <= 1) { // not v < 0 || v > 1: NaN would pass
		return errors.New("want a number from 0 to 1, e.g. 0.2")
	}
	*s = share(v)
	return nil
}

// LogFormat is the form of log lines.
type LogFormat string

// The values of LogFormat.
const (
	LogJSON    LogFormat = "json"
	LogConsole LogFormat = "console"
)

// UnmarshalText takes the values of LogFormat.
func (f *LogFormat) UnmarshalText(text []byte) error { return oneOf(f, text, LogJSON, LogConsole) }

// AccessLog says which requests get a log line.
type AccessLog string

// The values of AccessLog.
const (
	AccessOff    AccessLog = "off"
	AccessErrors AccessLog = "errors"
	AccessAll    AccessLog = "all"
	AccessDebug  AccessLog = "debug"
)

// All reports whether every request gets a line.
func (a AccessLog) All() bool { return a == AccessAll || a == AccessDebug }

// UnmarshalText takes the values of AccessLog.
func (a *AccessLog) UnmarshalText(text []byte) error {
	return oneOf(a, text, AccessOff, AccessErrors, AccessAll, AccessDebug)
}

// Balance says how requests to one upstream are spread over connections.
type Balance string

// The values of Balance.
const (
	BalanceSpread Balance = "spread"
	BalanceReuse  Balance = "reuse"
)

// UnmarshalText takes the values of Balance.
func (b *Balance) UnmarshalText(text []byte) error {
	return oneOf(b, text, BalanceSpread, BalanceReuse)
}

// HTTP2 says in which version of HTTP upstreams are spoken to.
type HTTP2 string

// The values of HTTP2.
const (
	HTTP2Auto HTTP2 = "auto"
	HTTP2Off  HTTP2 = "off"
)

// UnmarshalText takes the values of HTTP2.
func (h *HTTP2) UnmarshalText(text []byte) error { return oneOf(h, text, HTTP2Auto, HTTP2Off) }

// Policy says what becomes of requests that a rule refuses.
type Policy string

// The values of Policy.
const (
	PolicyEnforce Policy = "enforce"
	PolicyReport  Policy = "report"
)

// UnmarshalText takes the values of Policy.
func (p *Policy) UnmarshalText(text []byte) error { return oneOf(p, text, PolicyEnforce, PolicyReport) }

func oneOf[T ~string](dst *T, text []byte, values ...T) error {
	if !slices.Contains(values, T(text)) {
		return fmt.Errorf("want one of %v", values)
	}
	*dst = T(text)
	return nil
}

// Bytes is a size in bytes.
type Bytes int64

// Units of Bytes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
)

// UnmarshalText takes a number of bytes or, with KiB or MiB (Ki and Mi, as Kubernetes writes them), of 1024 or 1024²
// bytes. K, KB and the like are refused: to some they are 1000, to some 1024.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, unit := string(text), Bytes(1)
	binary := strings.TrimSuffix(number, "B")
	if n, ok := strings.CutSuffix(binary, "Ki"); ok {
		number, unit = n, KiB
	} else if n, ok := strings.CutSuffix(binary, "Mi"); ok {
		number, unit = n, MiB
	}
	v, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return errors.New("want a size in bytes, KiB or MiB, e.g. 65536 or 64KiB")
	}
	*b = Bytes(v) * unit
	return nil
}

// String writes b in the largest unit that divides it.
func (b Bytes) String() string {
	switch {
	case b != 0 && b%MiB == 0:
		return fmt.Sprintf("%dMiB", int64(b/MiB))
	case b != 0 && b%KiB == 0:
		return fmt.Sprintf("%dKiB", int64(b/KiB))
	}
	return strconv.FormatInt(int64(b), 10)
}

// Ports is a list of TCP ports, none of them 0.
type Ports []uint16

// UnmarshalText takes ports separated by commas, with or without spaces around them.
func (p *Ports) UnmarshalText(text []byte) error {
	var ports Ports
	for field := range strings.SplitSeq(string(text), ",") {
		v, err := strconv.ParseUint(strings.TrimSpace(field), 10, 16)
		if err != nil || v == 0 {
			return errors.New("want ports from 1 to 65535 separated by commas, e.g. 443,8443")
		}
		ports = append(ports, uint16(v))
	}
	*p = ports
	return nil
}

// String writes the ports separated by commas.
func (p Ports) String() string {
	fields := make([]string, len(p))
	for i, port := range p {
		fields[i] = strconv.Itoa(int(port))
	}
	return strings.Join(fields, ",")
}

// PortsOrOff is Ports that have a default, so that "none" needs a word of its own: off. A variable that is set but
// empty would mean the default.
type PortsOrOff []uint16

const off = "off"

// UnmarshalText takes what Ports takes, or off.
func (p *PortsOrOff) UnmarshalText(text []byte) error {
	if string(text) == off {
		*p = nil
		return nil
	}
	if (*Ports)(p).UnmarshalText(text) != nil {
		return errors.New("want ports from 1 to 65535 separated by commas, e.g. 80,8080, or off")
	}
	return nil
}

// String writes the ports separated by commas, or off.
func (p PortsOrOff) String() string {
	if len(p) == 0 {
		return off
	}
	return Ports(p).String()
}
