// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"net/netip"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/session"
)

func filterOf(t *testing.T, s session.Selection) RecordFilter {
	t.Helper()
	f, err := OfRecords(s)
	if err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	return f
}

// TestRecordFilterUnknown: what a record does not say is not what was asked for.
func TestRecordFilterUnknown(t *testing.T) {
	for _, s := range []session.Selection{{Ports: []string{"80"}},
		{Addrs: []string{"10.0.0.1"}}, {Clients: []string{"10.0.0.1"}},
		{NetNS: "7"}, {PID: 1}, {Comm: "nginx"}, {Causes: []string{"checksum"}}, {Stages: []string{"syn"}}} {
		f := filterOf(t, s)
		if f.drop(&event.Drop{}) {
			t.Errorf("%+v lets a record through that says nothing", s)
		}
	}
	f := filterOf(t, session.Selection{})
	if !f.drop(&event.Drop{}) ||
		f.suppressed(&event.Suppressed{}, listenerFacts{}) != answerYes {
		t.Error("without filters something is kept out")
	}
}

// TestRecordFilterHeld: packets that have no record of their own are neither taken nor left where
// their row does not say what was asked for.
func TestRecordFilterHeld(t *testing.T) {
	row := func(addr string, port uint16) *event.Suppressed {
		return &event.Suppressed{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: 9,
			Listener: &event.Listener{Addr: netip.MustParseAddr(addr), Port: port,
				NetNS: 7}}
	}
	ingress := &event.Suppressed{Cause: event.CauseNetfilter, Stage: event.StageIngress,
		Action: event.ActionDropped, Count: 9}
	mine, theirs, either := listenerFacts{owned: answerYes}, listenerFacts{owned: answerNo},
		listenerFacts{owned: answerUnsure}
	for _, tt := range []struct {
		name  string
		s     session.Selection
		row   *event.Suppressed
		known listenerFacts
		want  answer
	}{
		{"its port", session.Selection{Ports: []string{"80"}}, row("0.0.0.0", 80), either,
			answerYes},
		{"another port", session.Selection{Ports: []string{"443"}}, row("0.0.0.0", 80),
			either, answerNo},
		{"a port that is turned into its own", session.Selection{Ports: []string{"443"}},
			row("0.0.0.0", 80), listenerFacts{otherPort: true}, answerUnsure},
		{"no listener", session.Selection{Ports: []string{"80"}}, ingress, either,
			answerUnsure},
		{"no listener, a cause", session.Selection{Causes: []string{"netfilter"}}, ingress,
			either, answerYes},
		{"no listener, another cause",
			session.Selection{Ports: []string{"80"},
				Causes: []string{"checksum"}}, ingress, either, answerNo},
		{"no listener, a namespace", session.Selection{NetNS: "7"}, ingress, either,
			answerUnsure},
		{"its namespace", session.Selection{NetNS: "7"}, row("0.0.0.0", 80), either,
			answerYes},
		{"another namespace", session.Selection{NetNS: "8"}, row("0.0.0.0", 80), either,
			answerNo},
		{"its address", session.Selection{Addrs: []string{"10.0.0.1"}}, row("10.0.0.1", 80),
			either, answerYes},
		{"another address", session.Selection{Addrs: []string{"10.0.0.1"}},
			row("10.0.0.2", 80), either, answerNo},
		{"a wildcard", session.Selection{Addrs: []string{"10.0.0.1"}}, row("0.0.0.0", 80),
			either, answerUnsure},
		{"the other wildcard", session.Selection{Addrs: []string{"fd00::1"}},
			row("0.0.0.0", 80), either, answerNo},
		{"a client", session.Selection{Clients: []string{"10.0.0.1"}}, row("0.0.0.0", 80),
			either, answerUnsure},
		{"a client, another port", session.Selection{Clients: []string{"10.0.0.1"},
			Ports: []string{"443"}}, row("0.0.0.0", 80), either, answerNo},
		{"of any kind", session.Selection{Causes: []string{"netfilter"}},
			&event.Suppressed{Count: 9, Limit: event.LimitCount}, either, answerUnsure},
		{"its process", session.Selection{Comm: "web"}, row("0.0.0.0", 80), mine,
			answerYes},
		{"another process", session.Selection{Comm: "web"}, row("0.0.0.0", 80), theirs,
			answerNo},
		{"some process", session.Selection{Comm: "web"}, row("0.0.0.0", 80), either,
			answerUnsure},
	} {
		f := filterOf(t, tt.s)
		if got := f.suppressed(tt.row, tt.known); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
