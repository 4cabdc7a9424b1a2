// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/probetest"
	"github.com/synspy/synspy/internal/probe/reason"
)

// noHandshake is why some reasons have nothing to say though packets that die of them are counted: none of them is of a
// handshake.
var noHandshake = []string{"of data", "no TCP", "neighbour discovery", "closed", "frames to",
	"no reason", "end of the list", "no drop", "says nothing", "its cause"}

// TestReasonRows walks over every drop reason of every kernel, the newest and this machine's own among them: one that
// a SYN or a handshake's ACK can die of has a row with what to do, or says why not.
func TestReasonRows(t *testing.T) {
	all := map[string]map[string]uint32{}
	for _, name := range probetest.Kernels(t) {
		all[name] = probetest.KernelFacts(t, name).Reasons
	}
	if types, err := kernel.ReadTypes(""); err == nil {
		all["this one"] = types.Enum("skb_drop_reason")
	} else {
		t.Logf("this machine's own kernel: %v", err)
	}
	for name, reasons := range all {
		if strings.HasPrefix(name, "newest") && len(reasons) < 100 {
			t.Errorf("%s: %d reasons", name, len(reasons))
		}
		for full := range reasons {
			short := strings.TrimPrefix(full, reason.Prefix)
			r, ok := event.ReasonOf(short)
			if !ok {
				t.Errorf("%s: %s has neither a row nor a reason why not", name,
					full)
				continue
			}
			says := func(s string) bool { return strings.Contains(r.WhyNot, s) }
			if event.OutcomesOf(short) == event.OutcomesOf("") &&
				r.WhyNot != "" && !slices.ContainsFunc(noHandshake, says) {
				t.Errorf("%s: %s shows as kernel_other, and nothing says what to do: %q", name, full, r.WhyNot)
			}
		}
	}
}
