// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"syscall"

	"github.com/synspy/synspy/internal/render"
)

// hangup is a stream that notices at each flush, also when it has nothing to write, that its reader
// went away: trace | head -1 is to end when head does.
type hangup struct {
	render.Stream
	gone func() bool
}

// Flush returns EPIPE once the reader is gone.
func (s hangup) Flush() error {
	if s.gone() {
		return syscall.EPIPE
	}
	return s.Stream.Flush()
}
