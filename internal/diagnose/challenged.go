// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"

	"github.com/synspy/synspy/internal/event"
)

// counterChallenges moves with each segment with a SYN that meets a connection of the same addresses and ports.
const counterChallenges = "TCPSYNChallenge"

// challenged says that SYNs met connections that exist, where no packet of theirs was seen: before Linux 5.17 they are
// freed without an event. A SYN-ACK that comes again moves the counter as well.
func challenged(e *Evidence) []*found {
	n := unseenChallenges(e)
	if n == 0 {
		return nil
	}
	f := newFound(event.FindingOtherDrops, 0)
	f.Severity, f.Confidence = event.SeverityNote, event.ConfidencePossible
	f.Title = fmt.Sprintf("%s came on connections that exist, and were not seen", many(n, "SYN"))
	f.because = f.Title
	f.saw(counterChallenges+", beyond the packets seen", n, "packets")
	for _, s := range event.SynOnConnection() {
		f.fix(s)
	}
	f.Settles = "tcpdump on the port: a SYN that is answered by an ACK alone; SYN-ACKs that come again, to connections that this host makes, are counted as well"
	return []*found{f}
}

func unseenChallenges(e *Evidence) (n uint64) {
	if e.tells("TCP_INVALID_SYN") {
		return 0
	}
	for _, row := range e.Ledger {
		if row.Counter == counterChallenges && !row.Gone {
			n += row.Kernel - min(row.Kernel, row.Synspy)
		}
	}
	return n
}
