// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/collect/network"
	"github.com/synspy/synspy/internal/collect/queues"
	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/session"
)

// maxPorts bounds the ports asked about that the evidence lists.
const maxPorts = 64

// conclude makes evidence of what was collected.
func (c *collector) conclude(s event.Summary) {
	c.threads.End()
	start := c.queues.Clock.Start
	e := &c.evidence
	e.Files = c.threads.Files()
	e.Start, e.WindowMs = event.Time{Time: start}, uint64(time.Since(start).Milliseconds())
	e.Closely = c.threads.Closely(uint32(e.WindowMs))
	e.Filter = event.FilterText(c.options.Filters)
	e.OneNetNS = event.Filtered(c.options.Filters, "netns")
	for _, r := range c.options.Watch.Filter.Ports {
		for port := int(r.Low); port <= int(r.High) && len(e.Ports) < maxPorts; port++ {
			e.Ports = append(e.Ports, uint16(port))
		}
	}
	e.Counts, e.Ledger, e.Balanced = s.Counts, s.Ledger, &s.Balanced
	c.overflow(s.Overflow)
	c.clientsOf()
	c.met.Tick(true)
	e.Tells = slices.DeleteFunc(event.TellingReasons(),
		func(name string) bool { return !c.session.Probe.NamesReason(name) })
	places := network.NewPlaces(c.session.Log)
	e.Ingress = c.deaths.Evidence(places, c.met, e)
	e.Reasoned = c.reasoned.Evidence(places, c.met, e)
	e.Elsewhere = network.Elsewhere(c.session, places, c.deaths, c.queues.Throughout)
	e.Diversions, e.Doubts = c.diverted.Evidence(c.flows)
	e.Others = c.diverted.Others(c.session)
	c.listeners(&s)
	c.gaps()
	c.devices()
	c.network(places)
	e.Silence = silence(c.options.Watch, len(c.queues.Rows))
	e.Narrowed = len(c.options.Watch.Filter.Servers) > 0
}

// clientsOf adds the clients that lost packets, most first.
func (c *collector) clientsOf() {
	e := &c.evidence
	for _, count := range c.clients {
		e.Clients = append(e.Clients, *count)
	}
	slices.SortFunc(e.Clients, func(a, b event.ClientCount) int {
		return cmp.Or(cmp.Compare(b.Drops, a.Drops), cmp.Compare(a.Addr, b.Addr))
	})
	if len(c.clients) < maxClients {
		seen := uint64(len(c.clients))
		e.ClientsSeen = &seen
	}
	e.Clients = e.Clients[:min(len(e.Clients), listedClients)]
}

// overflow adds what had no room, and whether the listeners that the filters ask for may be
// concerned.
func (c *collector) overflow(o *event.Overflow) {
	c.evidence.Overflow = o
	if o == nil || c.session.Listeners.All() {
		return
	}
	unfollowed := c.session.Probe.Unfollowed()
	aside := o.Drops+o.Unnamed+o.Changes+o.Uncounted == 0 && len(c.queues.Rows) > 0
	for _, r := range c.queues.Rows {
		aside = aside && !unfollowed[r.Listener.NetNS] && c.counts(r)
	}
	c.evidence.OverflowAside = aside
}

// counts reports whether the SYNs of a listener are counted as its own.
func (c *collector) counts(r *queues.Row) bool {
	o := c.evidence.Overflow
	return c.session.Listeners.Remembers(r.Listener.Socket) &&
		(o == nil || o.Syns == 0 || r.Counts())
}

// concerned lists the network namespaces that the diagnosis is about: those of listeners, of
// deaths, and that of --netns; synspy's own if there are none.
func (c *collector) concerned(p *network.Places) []uint64 {
	all := c.queues.Concerned()
	for key := range c.deaths {
		all[key.NetNS] = true
	}
	all[c.options.Watch.Filter.NetNS] = true
	delete(all, 0)
	if len(all) == 0 {
		all[p.Own] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// network adds what was forwarded, what died on the way out, and what connection tracking and rules
// counted.
func (c *collector) network(places *network.Places) {
	e := &c.evidence
	forwarded, missing := c.forwards.Evidence()
	e.Forwarded, e.Missing = forwarded, append(e.Missing, missing...)
	e.Strays, e.StraysMs, missing = c.strays.Evidence(places, c.wanted)
	e.Missing = append(e.Missing, missing...)
	counted := c.netfilter.Evidence(places, c.concerned(places))
	e.Rules, e.Conntrack, e.Queues = counted.Rules, counted.Conntrack, counted.Queues
}

// wanted reports whether somebody listens on that port under watch, or the filter asks for it.
func (c *collector) wanted(server event.Endpoint) bool {
	for _, r := range c.queues.Rows {
		if r.Listener.Port == server.Port {
			return true
		}
	}
	return slices.Contains(c.evidence.Ports, server.Port)
}

// devices adds the XDP and tc programs that packets may have met.
func (c *collector) devices() {
	e := &c.evidence
	concerned := c.deaths.TakenBefore()
	arrived := evidence.Value(e.GroupSyns) > 0 || slices.ContainsFunc(e.Listeners,
		func(l evidence.Listener) bool { return evidence.Value(l.Syns) > 0 })
	aside := arrived && len(concerned) == 0
	maps.Copy(concerned, c.queues.Concerned())
	if netns := c.options.Watch.Filter.NetNS; netns != 0 {
		concerned[netns] = true
	}
	var missing []error
	if len(concerned) == 0 {
		missing = append(missing,
			errors.New("no listener says which network namespace is meant: "+
				"only the devices of synspy's own were asked"))
	}
	var unread []error
	e.Devices, e.DevicesRead, unread = network.Devices(slices.Sorted(maps.Keys(concerned)))
	for _, why := range append(missing, unread...) {
		if aside && !errors.Is(why, fs.ErrPermission) {
			continue // what SYNs did arrive for does not rest on it
		}
		e.Missing = append(e.Missing,
			evidence.Gap{Need: evidence.NeedDevices, Why: why.Error()})
	}
}

// silence says why no drop may mean nothing: what a filter keeps out may well have dropped, and
// SYNs are counted by listener.
func silence(watch session.Watch, listeners int) string {
	switch f := &watch.Filter; {
	case watch.Owner != owner.Filter{} && listeners == 0:
		return "no listener matched the filter"
	case len(f.Clients) > 0:
		return diagnose.SilentClient
	case len(f.Causes) > 0 || len(f.Stages) > 0:
		return diagnose.SilentCause
	}
	return ""
}

// gaps lists what could not be had.
func (c *collector) gaps() {
	missing := func(need evidence.Need, why string, by ...string) {
		by = slices.DeleteFunc(by, func(s string) bool { return s == "" })
		c.evidence.Missing = append(c.evidence.Missing,
			evidence.Gap{Need: need, Why: why, By: by})
	}
	if c.queues.Undivided() {
		missing(evidence.NeedDivision,
			"this backend does not see which socket of a SO_REUSEPORT group a SYN or a connection came to")
	}
	c.evidence.Missing = append(c.evidence.Missing, c.threads.Gaps()...)
	hidden := sync.OnceValue(kernel.SymbolsTake) // it reads them all
	for _, hook := range c.session.Ready().Hooks {
		if hook.Name == facts.AnswerAgain && !hook.Attached {
			missing(evidence.NeedSynAcks, hook.Note)
		}
		for _, blind := range hook.Blind {
			if blind.Unseen() && blind.Stage == event.StageIngress {
				missing(evidence.NeedIngress, fmt.Sprintf("%s is not seen: %s",
					blind.Cause, blind.Why), hidden()...)
			}
		}
	}
}
