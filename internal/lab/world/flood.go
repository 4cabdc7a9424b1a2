// SPDX-License-Identifier: Apache-2.0

package world

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
		local, isn := w.NextClient(server)
		s := Segment{Src: local, Dst: server, Seq: isn, Flags: FlagSYN, window: 64240,
			Options: SYNOptions()}
		frames[i] = s.Marshal()
	}
	return frames
}

// Inject writes frames to the TUN device one after the other. When it returns,
// the kernel has received them all and decided what becomes of each.
func (w *World) Inject(frames [][]byte) error {
	for i, frame := range frames {
		if err := w.InjectFrame(frame); err != nil {
			return fmt.Errorf("frame %d of %d: %w", i, len(frames), err)
		}
	}
	w.mu.Lock()
	w.syns += len(frames)
	w.mu.Unlock()
	return nil
}
