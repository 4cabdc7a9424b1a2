// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
)

// SYNFrames builds the SYNs of n clients of their own, ready to be injected:
// for floods, where building packets and waiting for answers would cost more
// than the kernel's work. Nobody reads their answers.
func (w *World) SYNFrames(server netip.AddrPort, n int) [][]byte {
	frames := make([][]byte, n)
	for i := range frames {
		local, isn := w.nextClient(server)
		s := segment{src: local, dst: server, seq: isn, flags: flagSYN, window: 64240, options: synOptions()}
		frames[i] = s.marshal()
	}
	return frames
}

// Inject writes frames to the TUN device one after the other. When it returns,
// the kernel has received them all and decided what becomes of each.
func (w *World) Inject(frames [][]byte) error {
	for i, frame := range frames {
		if err := w.inject(frame); err != nil {
			return fmt.Errorf("frame %d of %d: %w", i, len(frames), err)
		}
	}
	w.mu.Lock()
	w.syns += len(frames)
	w.mu.Unlock()
	return nil
}
