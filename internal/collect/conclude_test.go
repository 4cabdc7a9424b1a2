// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"net/netip"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/collect/queues"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// TestSilence: what a filter hides is not called healthy.
func TestSilence(t *testing.T) {
	var all, client, cause, stage, nobody session.Watch
	client.Filter.Clients = append(client.Filter.Clients, netip.MustParsePrefix("10.0.0.0/8"))
	cause.Filter.Causes = []event.Cause{event.CauseSynQueueFull}
	stage.Filter.Stages = []event.Stage{event.StageTimer}
	nobody.Owner.Comm = "nobody"
	all.Filter.Ports = []load.PortRange{{Low: 80, High: 80}}
	for _, c := range []struct {
		name      string
		watch     session.Watch
		listeners int
		silent    bool
	}{
		{"a port", all, 0, false}, {"a client", client, 1, true}, {"a cause", cause, 1,
			true}, {"a stage", stage, 1, true},
		{"somebody's", nobody, 1, false}, {"nobody's", nobody, 0, true},
	} {
		if got := silence(c.watch, c.listeners); (got != "") != c.silent {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// TestDevicesBesideDeaths: what died without harm, and be it one packet, is no reason not to look.
func TestDevicesBesideDeaths(t *testing.T) {
	own, err := kernel.Inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector(nil, DiagnoseOptions{Duration: time.Minute})
	c.queues.Rows[1] = &queues.Row{Listener: message.Listener{Socket: 1, NetNS: own}}
	syns := uint64(50)
	c.evidence.Listeners = []evidence.Listener{{Syns: &syns}}
	c.drops = 1
	if c.devices(); c.evidence.DevicesRead == nil {
		t.Error("no device was asked for programs")
	}
}

// TestDropsBeforeAListener: what died without a listener is counted, with a record or without.
func TestDropsBeforeAListener(t *testing.T) {
	c := newCollector(nil, DiagnoseOptions{Duration: time.Minute})
	if err := c.Drop(&event.Drop{Cause: event.CauseNoListener, Stage: event.StageIngress,
		Action: event.ActionReset}); err != nil {
		t.Fatal(err)
	}
	if err := c.Suppressed(event.Suppressed{Cause: event.CauseNoListener, Stage: event.StageIngress,
		Action: event.ActionReset, Count: 5}); err != nil {
		t.Fatal(err)
	}
	if c.drops != 6 || len(c.deaths) == 0 {
		t.Errorf("%d dropped or reset of %d kinds, want 6", c.drops, len(c.deaths))
	}
}
