// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// Recording makes evidence of a trace's records, as a file of them has it. The zero value is ready.
type Recording struct {
	// Asked is the filters given while reading: what they kept out is no lack of the recording.
	// They are the last ones of the ready record's.
	Asked []event.Filter

	recount   event.Recount
	ready     *event.Ready
	summary   *event.Summary
	last      time.Time
	order     []*recorded
	listeners map[listenerKey]*recorded
	counts    []event.Count
	ingress   []evidence.Death
	clients   map[netip.Addr]uint64
	held      bool // not every packet has a record
}

// listenerKey is the socket's cookie where that is known, else where it listens.
type listenerKey struct {
	cookie, netns uint64
	addr          netip.Addr
	port          uint16
}

type recorded struct {
	evidence.Listener
	drops []moment
}

// moment is a drop as the timeline needs it.
type moment struct {
	at     time.Time
	accept *event.Queue
	syn    *event.SynQueue
}

// Add takes the next record, as event.Decode returns it; what it does not know it passes over.
func (r *Recording) Add(record any) {
	switch rec := record.(type) {
	case *event.Ready:
		r.ready = rec
	case *event.Summary:
		r.summary = rec
		if rec.Recount != nil {
			r.Recounted(*rec.Recount)
		}
	case *event.Suppressed:
		r.held = true
		count := event.Count{Cause: rec.Cause, Stage: rec.Stage, Action: rec.Action,
			Count: rec.Count}
		if l := r.count(rec.Listener, count); l != nil {
			l.BadAcks.Add(count, rec.Kernel.Counters)
		}
	case *event.Drop:
		r.drop(rec)
	}
}

// Recounted says what is not known of what the filters ask for, where no summary says it.
func (r *Recording) Recounted(how event.Recount) {
	r.recount.Unsure = max(r.recount.Unsure, how.Unsure)
	r.recount.UnsureSyns = max(r.recount.UnsureSyns, how.UnsureSyns)
}

func (r *Recording) drop(d *event.Drop) {
	if d.Time.After(r.last) {
		r.last = d.Time.Time
	}
	if d.Type == "cookie" {
		if l := r.listener(d.Listener); l != nil {
			n := evidence.Value(l.Cookies) + 1
			l.Cookies = &n
		}
		return
	}
	one := event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action, Count: 1}
	l := r.count(d.Listener, one)
	if d.Action == event.ActionIgnored {
		return
	}
	if d.Client != nil && d.Client.Addr.IsValid() {
		if r.clients == nil {
			r.clients = make(map[netip.Addr]uint64)
		}
		r.clients[d.Client.Addr]++
	}
	if d.Stage == event.StageIngress {
		r.death(d)
	}
	if l == nil {
		return
	}
	l.BadAcks.Record(d)
	if d.Unsent {
		n := evidence.Value(l.Unsent) + 1
		l.Unsent = &n
	}
	l.drops = append(l.drops, moment{d.Time.Time, d.Listener.AcceptQueue, d.Listener.SynQueue})
	if len(d.Processes) > 0 {
		l.Processes = d.Processes
	}
	if d.Cause == event.CauseAcceptQueueFull {
		l.gap(d.Processes)
	}
}

// gap is how long ago the last accept of any process was.
func (l *recorded) gap(processes []event.Process) {
	var since *uint64
	for _, p := range processes {
		if p.LastAcceptMs != nil && (since == nil || *p.LastAcceptMs < *since) {
			since = p.LastAcceptMs
		}
	}
	if since != nil && *since > evidence.Value(l.LongestGapMs) {
		l.LongestGapMs = since
	}
}

func (r *Recording) death(d *event.Drop) {
	death := evidence.Death{Cause: d.Cause, Action: d.Action, NetNS: d.NetNS, Kernel: d.Kernel}
	death.Kernel.Counters = nil
	if d.Server != nil {
		death.Server = *d.Server
	}
	i := slices.IndexFunc(r.ingress, func(o evidence.Death) bool {
		return o.Cause == death.Cause && o.Action == death.Action &&
			o.Server == death.Server && o.NetNS == death.NetNS &&
			o.Kernel.Function == death.Kernel.Function &&
			o.Kernel.Reason == death.Kernel.Reason &&
			o.Kernel.Hook == death.Kernel.Hook &&
			o.Kernel.Family == death.Kernel.Family &&
			o.Kernel.Refusal == death.Kernel.Refusal
	})
	if i < 0 {
		if len(r.ingress) == maxDeaths { // a scan of every port
			return
		}
		r.ingress = append(r.ingress, death)
		i = len(r.ingress) - 1
	}
	r.ingress[i].Count++
}

// maxDeaths bounds the kinds of deaths before listeners that are told apart; all are in the counts.
const maxDeaths = 256

func (r *Recording) count(of *event.Listener, c event.Count) *recorded {
	r.counts = event.AddCount(r.counts, c)
	l := r.listener(of)
	if l != nil {
		l.Counts = event.AddCount(l.Counts, c)
	}
	return l
}

func (r *Recording) listener(of *event.Listener) *recorded {
	if of == nil {
		return nil
	}
	key := listenerKey{cookie: of.Cookie}
	if of.Cookie == 0 {
		key = listenerKey{netns: of.NetNS, addr: of.Addr, port: of.Port}
	}
	l := r.listeners[key]
	if l == nil {
		if r.listeners == nil {
			r.listeners = make(map[listenerKey]*recorded)
		}
		l = &recorded{}
		r.listeners[key] = l
		r.order = append(r.order, l)
	}
	before := l.ID
	l.ID = *of // the queues are those last seen
	l.ID.AcceptQueue = cmp.Or(of.AcceptQueue, before.AcceptQueue)
	l.ID.SynQueue = cmp.Or(of.SynQueue, before.SynQueue)
	l.ID.Reuseport = cmp.Or(of.Reuseport, before.Reuseport)
	return l
}

// Evidence is what the records add up to.
func (r *Recording) Evidence() *evidence.Evidence {
	e := &evidence.Evidence{Counts: slices.Clone(r.counts), Ingress: slices.Clone(r.ingress)}
	if r.ready != nil {
		e.Start = r.ready.Time
	}
	r.filtered(e)
	start := e.Start.Time
	if start.IsZero() {
		for _, l := range r.order {
			for _, d := range l.drops {
				if start.IsZero() || d.at.Before(start) {
					start = d.at
				}
			}
		}
	}
	if !start.IsZero() && r.last.After(start) {
		e.WindowMs = uint64(r.last.Sub(start).Milliseconds())
	}
	why := "a file of records does not have it"
	for _, n := range []evidence.Need{evidence.NeedAccepts, evidence.NeedTimeline,
		evidence.NeedThreads, evidence.NeedOnCPU, evidence.NeedCPU, evidence.NeedThrottled,
		evidence.NeedSysctls, evidence.NeedMembers,
		evidence.NeedSynAcks, evidence.NeedDevices, evidence.NeedForwarded} {
		e.Missing = append(e.Missing, evidence.Gap{Need: n, Why: why})
	}
	if r.summary == nil {
		e.Missing = append(e.Missing, evidence.Gap{Need: evidence.NeedSyns,
			Why: "the file has no summary: its recording was cut short"})
	} else {
		r.summed(e)
	}
	for _, l := range r.timed(e.WindowMs) {
		l.timeline(start, e.WindowMs)
	}
	for _, l := range r.order {
		e.Listeners = append(e.Listeners, l.Listener)
	}
	for addr, n := range r.clients {
		e.Clients = append(e.Clients, event.ClientCount{Addr: addr.String(), Drops: n})
	}
	slices.SortFunc(e.Clients, func(a, b event.ClientCount) int {
		return cmp.Or(cmp.Compare(b.Drops, a.Drops), cmp.Compare(a.Addr, b.Addr))
	})
	if !r.held && r.recount.Unsure == 0 {
		n := uint64(len(e.Clients))
		e.ClientsSeen = &n
	}
	e.Clients = evidence.Bound(e.Clients, rules.MaxClients)
	return e
}

// filtered says what the recording leaves out, and what is not known of what was asked for.
func (r *Recording) filtered(e *evidence.Evidence) {
	all := r.Asked // where the beginning is missing, its filters are not known
	if r.ready != nil {
		all = r.ready.Filters
	}
	e.Filter, e.Unsure = event.FilterText(all), r.recount.Unsure
	if e.Filter == "" {
		return
	}
	e.OneNetNS = event.Filtered(all, "netns")
	of := all[:len(all)-len(r.Asked)]
	if len(of) > 0 {
		e.LeftOut = "the recording was filtered by " + event.FilterText(of) +
			": what that left out is not among its records"
	}
	for _, f := range all {
		if f.Name == "port" {
			e.Ports = portsOf(f.Value)
		}
	}
	has := func(names ...string) bool {
		return event.Filtered(all, names...)
	}
	e.Narrowed = has("addr")
	nowhere := r.summary == nil || len(r.summary.Seen) == 0
	switch {
	case has("client"):
		e.Silence = SilentClient
	case has("cause", "stage"):
		e.Silence = SilentCause
	case e.Unsure > 0:
		e.Silence = rules.Unsure(e)
	case nowhere && r.recount.UnsureSyns > 0:
		e.Silence = advice.Many(r.recount.UnsureSyns, "SYN") +
			" came to listeners of which the recording does not say whether the filter asks for them"
	case nowhere && has("pid", "comm", "cgroup", "container", "pod"):
		e.Silence = "the recording tells of no listener that the filter matches"
	case nowhere && len(of) > 0 && slices.ContainsFunc(r.Asked,
		func(f event.Filter) bool { return !slices.Contains(of, f) }):
		e.Silence = e.LeftOut
	}
}

// portsOf reads the ports of a filter, as many as a live watch asks for one by one.
func portsOf(value string) (ports []uint16) {
	for part := range strings.SplitSeq(value, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 16)
		last, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for port := first; port <= last && len(ports) < maxPorts; port++ {
			ports = append(ports, uint16(port))
		}
	}
	return ports
}

// maxPorts bounds the ports that are named one by one.
const maxPorts = 4096

// Why no drop proves nothing where the filters ask for a client, a cause or a stage.
const (
	SilentClient = "SYNs are not counted by client, so that it is not known whether any came from there"
	SilentCause  = "the filter leaves out what dies of other causes or at other stages"
)

// summed takes what the summary says, which is exact where records were held back.
func (r *Recording) summed(e *evidence.Evidence) {
	s := r.summary
	e.WindowMs = uint64(max(s.DurationMs, 0))
	e.Differs = difference(r.counts, s.Counts)
	e.Counts, e.Ledger, e.Overflow, e.Balanced = s.Counts, s.Ledger, s.Overflow, &s.Balanced
	for _, seen := range s.Seen {
		if l := &seen.Listener; l.Cookie == 0 && l.Inode == 0 &&
			!seen.Others { // of a group whose members were not told apart
			e.GroupSyns = evidence.Sum(e.GroupSyns, &seen.Syn)
			continue
		}
		if l := r.listener(&seen.Listener); l != nil && !seen.Others {
			l.Syns, l.Finished = &seen.Syn, &seen.Ack
			if a := seen.Accepting; a != nil { // ACKs that died are among those that came
				l.Finished, l.SynAcksAgain, l.SynsAgain = &a.Arrivals,
					a.SynAcksAgain, a.SynsAgain
			}
		}
	}
}

// difference is of how many packets two accounts of the same deaths do not say the same.
func difference(a, b []event.Count) uint64 {
	type kind struct {
		cause  event.Cause
		stage  event.Stage
		action event.Action
	}
	kinds := make(map[kind]int64)
	add := func(counts []event.Count, sign int64) {
		for _, c := range counts {
			if c.Cause != event.CauseUnknown { // else SYNs that a cookie answered
				kinds[kind{c.Cause, c.Stage, c.Action}] += sign * int64(c.Count)
			}
		}
	}
	add(a, 1)
	add(b, -1)
	var more, fewer int64 // a packet of which one says another cause is in both
	for _, n := range kinds {
		more, fewer = more+max(n, 0), fewer+max(-n, 0)
	}
	return uint64(max(more, fewer))
}

// maxTimed bounds the listeners that get a timeline: each has up to MaxTimelinePoints, and a small
// file may name many.
const maxTimed = 256

// timed lists the listeners that get a timeline, those with most drops. None does where the window
// is too long for offsets in milliseconds: 49 days.
func (r *Recording) timed(windowMs uint64) []*recorded {
	if windowMs == 0 || windowMs > math.MaxUint32 {
		return nil
	}
	most := slices.DeleteFunc(slices.Clone(r.order),
		func(l *recorded) bool { return len(l.drops) == 0 })
	slices.SortStableFunc(most, func(a, b *recorded) int {
		return cmp.Compare(len(b.drops),
			len(a.drops))
	})
	return evidence.Bound(most, maxTimed)
}

// timeline puts the drops, and the queues they found, into steps.
func (l *recorded) timeline(start time.Time, windowMs uint64) {
	stepMs := uint32(max(100, (windowMs+event.MaxTimelinePoints-1)/event.MaxTimelinePoints))
	l.StepMs = stepMs
	points := make([]event.TimelinePoint, (windowMs+uint64(stepMs)-1)/uint64(stepMs))
	for i := range points {
		points[i].OffsetMs = uint32(i) * stepMs
		points[i].Drops = new(uint64)
	}
	for _, d := range l.drops {
		i := int(max(d.at.Sub(start), 0).Milliseconds() / int64(stepMs))
		p := &points[min(i, len(points)-1)]
		*p.Drops++
		*p = merge(*p, event.TimelinePoint{AcceptQueue: d.accept, SynQueue: d.syn})
	}
	l.Timeline = points
}
