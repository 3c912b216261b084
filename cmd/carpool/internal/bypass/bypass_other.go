//go:build !linux

package bypass

import "time"

func (*Detector) look() Snapshot { return Snapshot{Taken: time.Now()} }
