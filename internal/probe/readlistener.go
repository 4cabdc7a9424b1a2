// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"github.com/synspy/synspy/internal/bpf"
)

// ReadListener reads a listener as it is now: its queues, their limits, its address. It
// costs one run of a small program, some microseconds. ok is false once the
// socket listens no more. Not for several goroutines at once.
func (o *objects) ReadListener(l *Listener) (now Listener, ok bool, err error) {
	// An id is the address with the cookie in its upper bits: see socket_id() in
	// bpf/packet.h.
	address := l.Socket ^ l.Cookie<<48
	answer, err := o.anyCPU().ask(bpf.SynspyRequestREQUEST_LISTENER, address, namespace{net: l.Socket})
	if err != nil || answer == bpf.SynspyAnswerANSWER_GONE {
		return Listener{}, false, err
	}
	if answer != bpf.SynspyAnswerANSWER_DONE {
		return Listener{}, false, fmt.Errorf("read listener %d: refused", l.Inode)
	}
	var raw bpf.SynspyListener
	if err := o.collection.Maps["listeners_read"].Lookup(uint32(0), &raw); err != nil {
		return Listener{}, false, fmt.Errorf("read listener %d: %w", l.Inode, err)
	}
	return listenerOf(&raw), true, nil
}
