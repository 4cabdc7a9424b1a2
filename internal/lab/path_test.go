// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// checkClients holds what the clients of each row saw to the row's action, so
// that a record that says reset is one whose client was reset. What happens
// before a listener may be answered in other ways than by TCP.
func checkClients(t *testing.T, w *world.World, e scenario.Expectation) {
	t.Helper()
	clients := make(map[netip.AddrPort]*world.Client)
	for _, c := range w.Players {
		clients[c.Local] = c
	}
	for _, r := range e.Records {
		if r.Stage == event.StageIngress {
			continue
		}
		for _, address := range r.Clients {
			c := clients[address]
			if c == nil {
				t.Errorf("%s at %s: nobody played client %s", r.Cause, r.Stage,
					address)
				continue
			}
			// When a timer finds the listener gone nothing is sent: the RST comes
			// later.
			if c.WasReset() != (r.Action == event.ActionReset &&
				r.Stage != event.StageTimer) {
				t.Errorf("%s at %s, %s: client %s was reset: %t", r.Cause, r.Stage,
					r.Action, address, c.WasReset())
			}
			if r.Stage == event.StageSyn &&
				c.Answered() != (r.Action == event.ActionIgnored) {
				t.Errorf("%s at %s, %s: client %s got a SYN-ACK: %t", r.Cause,
					r.Stage, r.Action, address, c.Answered())
			}
		}
	}
}

// exited reports whether a server is gone on purpose: the end of a process is
// one of the ways a listener closes.
func exited(e scenario.Expectation, pid int) bool {
	if !slices.ContainsFunc(e.Records,
		func(r scenario.Expect) bool { return r.Cause == event.CauseListenerClosed }) {
		return false
	}
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return errors.Is(err, fs.ErrNotExist)
}

// perBranch reports causes of which only some branches move ListenDrops: what
// the cause table lists says nothing about a particular record of theirs.
func perBranch(r scenario.Expect) bool {
	return r.Cause == event.CauseBadSyn || r.Cause == event.CauseKernelOther ||
		r.Cause == event.CauseDeniedByLSM
}
