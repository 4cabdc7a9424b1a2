// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseCPUList(t *testing.T) {
	got, err := parseCPUList("0-2,5,7-8")
	if err != nil || !slices.Equal(got, []int{0, 1, 2, 5, 7, 8}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseCPUList("0-x"); err == nil {
		t.Error("nonsense was taken")
	}
}

// TestCodeRanges: a function's range starts where the kernel says it does and
// ends before the next symbol.
func TestCodeRanges(t *testing.T) {
	ranges, err := CodeRanges("tcp_v4_rcv", "no_such_function")
	if err != nil {
		t.Fatal(err)
	}
	code := ranges["tcp_v4_rcv"]
	if len(code) == 0 || code[0].Start == 0 || code[0].End <= code[0].Start ||
		code[0].End-code[0].Start > 1<<16 {
		t.Errorf("tcp_v4_rcv is at %+v", code)
	}
	if len(ranges) != 1 {
		t.Errorf("found %v", ranges)
	}
}

func TestWallClock(t *testing.T) {
	mono := Monotonic()
	wall := time.Unix(0, int64(mono)+int64(WallClock()))
	if off := time.Since(wall).Abs(); off > time.Second {
		t.Errorf("the wall clock is off by %v", off)
	}
}

func TestFindNetNS(t *testing.T) {
	own, err := Inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"/proc/self/ns/net", strconv.Itoa(os.Getpid()),
		strconv.FormatUint(own, 10)} {
		if got, err := FindNetNS(arg); err != nil || got != own {
			t.Errorf("%s: got %d, %v, want %d", arg, got, err, own)
		}
	}
	for _, arg := range []string{"no-such-name", "/proc/self/ns/pid", "/etc/passwd",
		"4294967295", "/nowhere"} {
		if got, err := FindNetNS(arg); !errors.Is(err, ErrNoNetNS) {
			t.Errorf("%s: got %d, %v", arg, got, err)
		}
	}
}

func TestMissingCapabilities(t *testing.T) {
	var all uint64
	for _, c := range NeededCapabilities() {
		all |= 1 << c.Bit
		if len(c.Without) == 0 {
			t.Errorf("nothing is lost without %s", c.Name)
		}
	}
	if missing := MissingCapabilities(all); len(missing) != 0 {
		t.Errorf("missing %v of everything", missing)
	}
	if missing := MissingCapabilities(0); len(missing) != len(NeededCapabilities()) {
		t.Errorf("only %v missing of nothing", missing)
	}
	admin := all &^ (1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON)
	if missing := MissingCapabilities(admin); len(missing) != 0 {
		t.Errorf("CAP_SYS_ADMIN leaves %v missing", missing)
	}
}
