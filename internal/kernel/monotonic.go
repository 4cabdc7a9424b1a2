// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// began is one moment by CLOCK_MONOTONIC and by the runtime, which reads that clock without a
// system call.
var began = sync.OnceValues(func() (mono int64, at time.Time) {
	closest := time.Duration(math.MaxInt64)
	for range 5 { // between the two readings something else may run
		var now unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return 0, before
		}
		if took := time.Since(before); took < closest {
			closest, mono, at = took, now.Nano(), before
		}
	}
	return mono, at
})

// Monotonic returns CLOCK_MONOTONIC in nanoseconds, which BPF programs read.
func Monotonic() uint64 {
	mono, at := began()
	return uint64(mono + int64(time.Since(at)))
}

// WallClock returns what must be added to CLOCK_MONOTONIC to get the wall clock. Steps of the wall
// clock change it.
func WallClock() time.Duration {
	mono, at := began()
	now := time.Now()
	return time.Duration(now.UnixNano() - mono - int64(now.Sub(at)))
}
