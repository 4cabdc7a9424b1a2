// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestVerdictNumbers: the number that a verdict begins with is of what its sentence is about.
func TestVerdictNumbers(t *testing.T) {
	fills := evidenceOf(died1(deferred(healthyListener(), 17, evidence.Deferred{Watched: 17,
		Held: 17, LongestMs: 5000}),
		event.CauseSynQueueFull, event.StageSyn, event.ActionDropped, 307))
	apart := evidenceOf(deferred(healthyListener(), 50, evidence.Deferred{Watched: 50, Held: 50,
		LongestMs: 4000}),
		died1(healthyListener(), event.CauseBadHandshakeAck, event.StageAck,
			event.ActionReset, 20))
	neighbour := evidenceOf(died1(finishing(healthyListener(), 0), event.CauseICMPError,
		event.StageAck, event.ActionDropped, 29))
	neighbour.Listeners[0].SynAcksAgain, neighbour.Listeners[0].SynsAgain, neighbour.Listeners[0].Finished = ptr(uint64(298)), ptr(uint64(250)), ptr(uint64(0))
	strayed(neighbour, 131, evidence.Stray{Device: "lab1",
		Kernel: event.Kernel{Function: "neigh_invalidate", Reason: "NEIGH_FAILED"}})
	strayed(neighbour, 29, evidence.Stray{Device: "lab1",
		Kernel: event.Kernel{Function: "arp_error_report"}})
	reset := evidenceOf(badAcks(finishing(healthyListener(), 0), 394,
		evidence.BadAcks{ByClient: 394, ClientAgain: 275}))
	reset.Listeners[0].Finished = ptr(uint64(0))
	checks := onlyEnded(20)
	checks.Syns = ptr(*checks.Syns + 1) // one is under way when the window ends
	checks.ID.SynQueue.Len = 1
	checks.Timeline[len(checks.Timeline)-1].Arrivals = ptr(uint64(1))
	told := slices.ContainsFunc(Diagnose(neighbour).Findings[0].Evidence,
		func(seen event.Evidence) bool {
			return strings.HasPrefix(seen.What,
				"SYN-ACKs dropped by the neighbour table of lab1") &&
				seen.Value == uint64(160)
		})
	if !told {
		t.Error("the evidence has another number than the sentence")
	}
	for name, test := range map[string]struct {
		e    *evidence.Evidence
		says string
		not  string
	}{
		"TCP_DEFER_ACCEPT, and what it left no room for": {fills,
			"307 handshake packets to 10.0.0.1:443 died: TCP_DEFER_ACCEPT", "Of 307"},
		"TCP_DEFER_ACCEPT, and others died elsewhere": {apart,
			"Handshakes to 10.0.0.1:443 are in trouble: TCP_DEFER_ACCEPT", "Of 20"},
		"answers dropped, and the errors about it": {neighbour,
			"No handshake to 10.0.0.1:443 was finished: 160 SYN-ACKs were dropped on the way out", "29"},
		"answers reset, the last tries among them": {reset,
			"No handshake to 10.0.0.1:443 was finished: an RST from the clients' side ended 394 handshakes, and 275", "packets"},
		"health checks, one of them under way": {evidenceOf(checks),
			"the client's own RST", "none of"},
	} {
		if verdict := Diagnose(test.e).Verdict; !strings.Contains(verdict, test.says) ||
			strings.Contains(verdict, test.not) {
			t.Errorf("%s: %s", name, verdict)
		}
	}
}
