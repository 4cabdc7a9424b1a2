// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestEveryHand: where the kernel gives one reason for what several parts of it do, each of them is
// named, with where to look.
func TestEveryHand(t *testing.T) {
	of := func(cause event.Cause) string {
		d := Diagnose(evidenceOf(died1(healthyListener(), cause, event.StageSyn,
			event.ActionDropped, 40)))
		complete(t, d.Findings[0])
		return d.Verdict + " " + strings.Join(d.Findings[0].Fix, "; ")
	}
	ipsec := evidence.Stray{Answer: true, Kernel: event.Kernel{Function: "dst_discard_out",
		Reason: "NOT_SPECIFIED"}}
	freer := ipsec.Freer()
	again, ok := event.ReasonOf("TCP_FASTOPEN")
	if !ok {
		t.Fatal("the reason TCP_FASTOPEN has no row")
	}
	for name, test := range map[string]struct {
		says  string
		wants []string
	}{
		// xfrm_lookup_route() fails as a missing route does.
		"no way back": {of(event.CauseNoRouteBack), []string{"IPsec policy", "ip route get",
			"ip rule", "ip xfrm policy"}},
		// sk_filter_trim_cap() asks all three, and before 6.16 has one reason for them.
		"a filter": {of(event.CauseSocketFilter), []string{"cgroup", "security module",
			"ss -b", "audit log"}},
		// A policy that waits for its state discards what it is asked to send.
		"discarded": {freer.Place + " " + strings.Join(freer.Fix, "; "), []string{"IPsec",
			"ip xfrm state"}},
		// tcp_check_req() makes nothing of a SYN that is sent again.
		"Fast Open": {again.Explain + " " + strings.Join(again.Fix, "; "),
			[]string{"SYNs sent again", "SYN-ACKs are lost"}},
	} {
		for _, want := range test.wants {
			if !strings.Contains(test.says, want) {
				t.Errorf("%s: %q does not name %q", name, test.says, want)
			}
		}
	}
}
