package app

import (
	"net/netip"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
)

// TestUnreadSteps: of steps in which others were read nothing is known, and of steps between two
// ticks that nothing came.
func TestUnreadSteps(t *testing.T) {
	c := newCollector(nil, DiagnoseOptions{Duration: time.Minute})
	c.start = time.Now().Add(-350 * time.Millisecond)
	unread, late := &evidenceRow{skipped: true}, &evidenceRow{}
	unread.point(c)
	late.point(c)
	if n := len(unread.points); n < 4 || unread.points[0].Arrivals != nil || unread.points[0].Accepts != nil {
		t.Errorf("not read: %d points, the first %+v", n, unread.points[0])
	}
	if p := late.points[0]; p.Arrivals == nil || *p.Arrivals != 0 || p.Accepts == nil {
		t.Errorf("nothing came: %+v", p)
	}
}

// TestManyDeaths: more kinds of deaths than are told apart are counted all the same.
func TestManyDeaths(t *testing.T) {
	c := newCollector(nil, DiagnoseOptions{Duration: time.Minute})
	const ports = 2 * maxDeaths
	for port := range uint16(ports) {
		err := c.Drop(&event.Drop{Cause: event.CauseNoListener, Stage: event.StageIngress, Action: event.ActionReset, Server: &event.Endpoint{Port: 1 + port}})
		if err != nil {
			t.Fatal(err)
		}
	}
	var n uint64
	for _, count := range c.deaths {
		n += count
	}
	if n != ports || len(c.deaths) != maxDeaths+1 {
		t.Errorf("%d deaths of %d kinds, want %d of %d", n, len(c.deaths), ports, maxDeaths+1)
	}
	if err := c.Held(event.Held{Cause: event.CauseNoListener, Stage: event.StageIngress, Action: event.ActionReset, Count: 5}); err != nil {
		t.Fatal(err)
	}
	if c.drops != ports+5 {
		t.Errorf("%d dropped or reset, want %d", c.drops, ports+5)
	}
}

// TestSilence: what a filter hides is not called healthy.
func TestSilence(t *testing.T) {
	var all, client, cause, stage, nobody Watch
	client.Filter.Clients = append(client.Filter.Clients, netip.MustParsePrefix("10.0.0.0/8"))
	cause.Filter.Causes = []event.Cause{event.CauseSynQueueFull}
	stage.Filter.Stages = []event.Stage{event.StageTimer}
	nobody.Owner.Comm = "nobody"
	all.Filter.Ports = []probe.PortRange{{Low: 80, High: 80}}
	for _, c := range []struct {
		name      string
		watch     Watch
		listeners int
		silent    bool
	}{
		{"a port", all, 0, false}, {"a client", client, 1, true}, {"a cause", cause, 1, true}, {"a stage", stage, 1, true},
		{"somebody's", nobody, 1, false}, {"nobody's", nobody, 0, true},
	} {
		if got := silence(c.watch, c.listeners); (got != "") != c.silent {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
