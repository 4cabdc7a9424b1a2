// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

const (
	maxListeners = 50
	maxTimelines = 16
)

// views is what reports draw: each listener with its numbers, stacks and replay, and its timeline;
// most drops first.
func views(e *evidence.Evidence) ([]event.ListenerView, []event.Timeline, *event.Unlisted) {
	listeners := make([]*evidence.Listener, len(e.Listeners))
	for i := range e.Listeners {
		listeners[i] = &e.Listeners[i]
	}
	slices.SortStableFunc(listeners, func(a, b *evidence.Listener) int {
		return cmp.Or(cmp.Compare(evidence.DiedOfAll(b.Counts),
			evidence.DiedOfAll(a.Counts)), cmp.Compare(
			evidence.Value(b.Syns), evidence.Value(a.Syns)))
	})
	var out []event.ListenerView
	lines := []event.Timeline{}
	for _, l := range evidence.Bound(listeners, maxListeners) {
		s := rules.NewSubject(e, l)
		out = append(out, event.ListenerView{
			Listener: l.ID, Processes: evidence.Bound(l.Processes,
				rules.MaxProcesses), Counts: l.Counts, Syns: l.Syns, Accepts: l.Accepts,
			Drops: evidence.DiedOfAll(l.Counts), LongestGapMs: l.LongestGapMs,
			AcceptWaits: l.Waits,
			Stacks:      stacks(s), WhatIf: s.WhatIf,
		})
		if len(l.Timeline) > 0 && len(lines) < maxTimelines {
			lines = append(lines, timeline(l))
		}
	}
	return out, lines, unlisted(listeners[len(out):], e.GroupSyns != nil)
}

// unlisted sums up those that are not listed. grouped: those without a count are in that of all
// groups.
func unlisted(rest []*evidence.Listener, grouped bool) *event.Unlisted {
	if len(rest) == 0 {
		return nil
	}
	var syns uint64
	for _, l := range rest {
		if l.Syns == nil && !grouped {
			return &event.Unlisted{Listeners: uint64(len(rest))}
		}
		syns += evidence.Value(l.Syns)
	}
	return &event.Unlisted{Listeners: uint64(len(rest)), Syns: &syns}
}

// timeline marks the throttled steps, and makes steps longer until they are few enough.
func timeline(l *evidence.Listener) event.Timeline {
	s := &rules.Subject{Listener: l}
	per := (len(l.Timeline) + event.MaxTimelinePoints - 1) / event.MaxTimelinePoints
	out := event.Timeline{Listener: &l.ID, StepMs: l.StepMs * uint32(per)}
	for chunk := range slices.Chunk(l.Timeline, per) {
		p := chunk[0]
		p.Throttled = s.Throttled(p)
		for _, next := range chunk[1:] {
			p = merge(p, next)
			p.Throttled = p.Throttled || s.Throttled(next)
		}
		out.Points = append(out.Points, p)
	}
	return out
}

// merge makes one point of two: the longer queues, the sum of what was counted.
func merge(a, b event.TimelinePoint) event.TimelinePoint {
	if a.AcceptQueue == nil || b.AcceptQueue != nil && b.AcceptQueue.Len > a.AcceptQueue.Len {
		a.AcceptQueue = b.AcceptQueue
	}
	if a.SynQueue == nil || b.SynQueue != nil && b.SynQueue.Len > a.SynQueue.Len {
		a.SynQueue = b.SynQueue
	}
	a.Arrivals, a.Retries = evidence.Sum(a.Arrivals, b.Arrivals), evidence.Sum(a.Retries,
		b.Retries)
	a.Accepts, a.Drops = evidence.Sum(a.Accepts, b.Accepts), evidence.Sum(a.Drops, b.Drops)
	return a
}

// stacks puts equal samples together: those of what the threads mainly did under pressure first,
// then the commonest.
func stacks(s *rules.Subject) []event.ThreadStack {
	type group struct {
		event.ThreadStack
		telling int // samples of what the findings tell
	}
	var groups []*group
	byKey := make(map[string]*group)
	before := make(map[uint64]uint32) // by thread
	mainly := mostDid(s)
	s.EachSample(func(t evidence.Thread, smp evidence.Sample, did rules.Doing) {
		if did == rules.DoingStarved { // whatever it was at when the sample was taken
			smp.State, smp.OnCPU, smp.Syscall = "R", false, ""
		}
		key := fmt.Sprintf("%d\n%d\n%s\n%v\n%s\n%v\n%s\n\n%s", t.PID, t.TID, smp.State,
			smp.Frozen, smp.Syscall, smp.OnCPU,
			strings.Join(smp.Kernel, "\n"), strings.Join(smp.User, "\n"))
		g := byKey[key]
		if g == nil {
			g = &group{ThreadStack: event.ThreadStack{PID: t.PID, TID: t.TID,
				Comm: t.Comm, State: smp.State, Frozen: smp.Frozen,
				Syscall: smp.Syscall,
				OnCPU:   smp.OnCPU, Kernel: smp.Kernel, User: smp.User}}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.Samples++
		if since, ok := before[t.Key()]; ok {
			g.Ms += uint64(smp.OffsetMs - min(since, smp.OffsetMs))
		}
		before[t.Key()] = smp.OffsetMs
		if did == mainly && s.UnderPressure(smp) {
			g.telling++
		}
	})
	slices.SortStableFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.telling, a.telling), cmp.Compare(b.Samples, a.Samples))
	})
	var out []event.ThreadStack
	for _, g := range evidence.Bound(groups, rules.MaxStacks) {
		out = append(out, g.ThreadStack)
	}
	return out
}

// mostDid is what the threads did for most of the judged time under pressure; [doingUnknown] where
// none is.
func mostDid(s *rules.Subject) rules.Doing {
	most := rules.DoingUnknown
	for did, steps := range s.Did {
		if steps > s.Did[most] {
			most = rules.Doing(did)
		}
	}
	return most
}
