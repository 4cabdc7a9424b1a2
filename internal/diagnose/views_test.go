package diagnose

import "testing"

func TestUnlisted(t *testing.T) {
	listening := func(n int) *Evidence {
		var all []Listener
		for range n {
			syns := uint64(3)
			all = append(all, Listener{Syns: &syns})
		}
		return evidence(all...)
	}
	if d := Diagnose(listening(maxListeners)); len(d.Listeners) != maxListeners || d.Unlisted != nil {
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
