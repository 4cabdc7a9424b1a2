// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

func TestUnlisted(t *testing.T) {
	listening := func(n int) *evidence.Evidence {
		var all []evidence.Listener
		for range n {
			syns := uint64(3)
			all = append(all, evidence.Listener{Syns: &syns})
		}
		return evidenceOf(all...)
	}
	if d := Diagnose(listening(maxListeners)); len(d.Listeners) != maxListeners ||
		d.Unlisted != nil {
		t.Errorf("%d listeners, and %+v", len(d.Listeners), d.Unlisted)
	}
	many := listening(maxListeners + 7)
	rest := Diagnose(many).Unlisted
	if rest == nil || rest.Listeners != 7 || rest.Syns == nil || *rest.Syns != 21 {
		t.Errorf("%+v, want 7 listeners with 21 SYNs", rest)
	}
	many.Listeners[maxListeners+3].Syns = nil
	many.Listeners[maxListeners+3].Counts = nil
	if rest := Diagnose(many).Unlisted; rest == nil || rest.Syns != nil {
		t.Errorf("%+v, of which one was not counted", rest)
	}
}

// TestStacksSayWhatIsTold: a stack is said to do what the findings judge its samples by, and those
// of what was mainly done under pressure come first, however few they are.
func TestStacksSayWhatIsTold(t *testing.T) {
	starved := starving
	starved.OnCPU, starved.User = true, []string{"accept4", "main"}
	frozen := inAccept
	frozen.Frozen = true
	for _, tt := range []struct {
		name        string
		told, other evidence.Sample
		want        func(event.ThreadStack) bool
	}{
		{"starved, with a stack that a profiler saw running", starved, inPoll,
			func(s event.ThreadStack) bool { return s.State == "R" && !s.OnCPU }},
		{"frozen asleep", frozen, inPoll,
			func(s event.ThreadStack) bool { return s.Frozen }},
		{"busy", computing, inPoll, func(s event.ThreadStack) bool {
			return s.OnCPU &&
				s.User[0] == "bn_mul_mont"
		}},
		{"blocked", inSleep, inPoll,
			func(s event.ThreadStack) bool { return s.Syscall == "clock_nanosleep" }},
	} {
		l := thread(blockedWindow(16), true, between(3000, 6900, tt.told, tt.other))
		got := Diagnose(evidenceOf(l)).Listeners[0].Stacks
		if len(got) < 2 || !tt.want(got[0]) || tt.want(got[1]) {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}
