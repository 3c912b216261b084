package h2

import "encoding/binary"

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	// headLen is the length of what is in front of each frame.
	headLen = 9
	// minFrame is how long a frame may be that either side has said nothing else of.
	minFrame = 16 << 10
	// maxFrame is how long we make one at most.
	maxFrame = 64 << 10
	// firstWindow is a window of which nothing was said.
	firstWindow = 1<<16 - 1
	// maxWindow is the largest that there is.
	maxWindow = 1<<31 - 1
)

// Types of frames (RFC 9113 section 6).
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

// Flags.
const (
	flagEnd        = 0x1 // of a stream
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 section 6.5.2).
const (
	settingTableSize     = 1
	settingEnablePush    = 2
	settingMaxStreams    = 3
	settingInitialWindow = 4
	settingMaxFrame      = 5
	settingMaxHeaderList = 6
)

// frame is a frame that has come, whole.
type frame struct {
	kind, flags byte
	id          uint32
	payload     []byte
}

func (f *frame) has(flag byte) bool { return f.flags&flag != 0 }

// parseFrame takes a frame from the front of b. n is its length, 0 if it has not come
// in whole.
func parseFrame(b []byte) (f frame, n int, err error) {
	if len(b) < headLen {
		return f, 0, nil
	}
	size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if size > minFrame {
		return f, 0, connError(codeFrameSize, "a frame is too long")
	}
	if len(b) < headLen+size {
		return f, 0, nil
	}
	f = frame{kind: b[3], flags: b[4], id: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31), payload: b[headLen : headLen+size]}
	return f, headLen + size, nil
}

// unpad takes the padding, and the priority if there may be one, off a frame.
func (f *frame) unpad() error {
	p := f.payload
	if f.has(flagPadded) {
		if len(p) == 0 {
			return connError(codeFrameSize, "a padded frame is empty")
		}
		pad := int(p[0])
		if p = p[1:]; pad > len(p) {
			return connError(codeProtocol, "there is more padding than frame")
		}
		p = p[:len(p)-pad]
	}
	if f.kind == frameHeaders && f.has(flagPriority) {
		if len(p) < 5 {
			return connError(codeFrameSize, "a frame is too short for its priority")
		}
		p = p[5:]
	}
	f.payload = p
	return nil
}

func appendFrame(b []byte, kind, flags byte, id uint32, size int) []byte {
	b = append(b, byte(size>>16), byte(size>>8), byte(size), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), v)
}

func appendWindowUpdate(b []byte, id uint32, n int64) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, frameWindowUpdate, 0, id, 4), uint32(n))
}

func appendReset(b []byte, id uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, frameReset, 0, id, 4), uint32(code))
}

func appendGoAway(b []byte, code Code) []byte {
	b = appendFrame(b, frameGoAway, 0, 0, 8)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 0), uint32(code))
}
