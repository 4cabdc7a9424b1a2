// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"testing"
	"time"
)

func TestStackLeavesOutWhatIsUnknown(t *testing.T) {
	stack := Stack{PID: 1, TID: 2, State: ThreadSleeping,
		Frames: []Frame{{Function: "do_nanosleep", Module: "[kernel]", Offset: 4,
			Kernel: true},
			{Module: "/bin/a", Offset: 16}, {Address: 4096}}, NS: 5}
	got, err := json.Marshal(stack)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"pid":1,"tid":2,"state":"sleeping","frames":[` +
		`{"function":"do_nanosleep","module":"[kernel]","offset":4,"kernel":true},{"module":"/bin/a","offset":16},{"address":4096}],"ns":5}`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestStackDuration(t *testing.T) {
	for want, stack := range map[time.Duration]Stack{
		5 * time.Nanosecond: {State: ThreadSleeping, NS: 5, Samples: 9, Hz: 99},
		2 * time.Second:     {State: ThreadRunning, NS: 5, Samples: 198, Hz: 99},
		0:                   {State: ThreadRunning, Samples: 1},
	} {
		if got := stack.Duration(); got != want {
			t.Errorf("%+v: %v, want %v", stack, got, want)
		}
	}
}

func TestFrameString(t *testing.T) {
	for want, frame := range map[string]Frame{
		"main+0x1f (server)": {Function: "main", Module: "/usr/bin/server",
			Offset: 0x1f},
		"handle (server)": {Function: "handle", Module: "/usr/bin/server",
			Called: true},
		"server+0x1000": {Module: "/usr/bin/server", Offset: 0x1000},
		"do_nanosleep+0x4 ([kernel])": {Function: "do_nanosleep", Module: "[kernel]",
			Offset: 4, Kernel: true},
		"0x7f00": {Address: 0x7f00},
	} {
		if got := frame.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
