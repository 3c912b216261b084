package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

const procText = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 34567 1 0000000000000000 100 0 0 10 0
   1: 0100010A:9C40 0200010A:0050 06 00000000:00000000 03:00001720 00000000     0        0 0 3 0000000000000000
   2: 000000FD000000000000000001000000:9C42 0000000000000000FFFF00000200010A:0050 01 00000000:00000000 00:00000000 00000000     7        0 99 1
`

func TestProcNetTCPIsRead(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the text is that of a little-endian machine")
	}
	got, err := ParseProc([]byte(procText))
	if err != nil {
		t.Fatal(err)
	}
	want := []Socket{
		{Src: netip.MustParseAddrPort("127.0.0.1:8080"), Dst: netip.MustParseAddrPort("0.0.0.0:0"), State: Listen, UID: 1000, Inode: 34567, Cookie: 34567},
		{Src: netip.MustParseAddrPort("10.1.0.1:40000"), Dst: netip.MustParseAddrPort("10.1.0.2:80"), State: TimeWait, Waiting: true},
		{Src: netip.MustParseAddrPort("[fd00::1]:40002"), Dst: netip.MustParseAddrPort("10.1.0.2:80"), State: Established, UID: 7, Inode: 99, Cookie: 99},
	}
	for i, s := range got {
		if i >= len(want) || s != want[i] {
			t.Errorf("%d: %+v, want %+v", i, s, want)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d sockets, want %d", len(got), len(want))
	}
}

func TestAProcFileThatMakesNoSenseIsAnError(t *testing.T) {
	for _, line := range []string{
		"0: 0100007F:1F90", "0: 0100007F 0:0 0A 0 0 0 0 0 1", "0: 010000:1F90 00000000:0000 0A 0 0 0 0 0 1",
		"0: 0100007F:1F90 00000000:0000 XX 0 0 0 0 0 1", "0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 -1",
	} {
		if found, err := ParseProc([]byte("sl\n" + line + "\n")); err == nil {
			t.Errorf("%s: %v", line, found)
		}
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add([]byte(procText))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := ParseProc(text)
		for _, s := range found {
			if err != nil || !s.Src.IsValid() || !s.Dst.IsValid() {
				t.Fatalf("%+v, %v", s, err)
			}
		}
	})
}
