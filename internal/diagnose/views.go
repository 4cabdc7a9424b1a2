// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

const (
	maxListeners = 50
	maxTimelines = 16
)

// views is what reports draw: each listener with its numbers, stacks and replay, and its timeline; most drops first.
func views(e *Evidence) ([]event.ListenerView, []event.Timeline, *event.Unlisted) {
	listeners := make([]*Listener, len(e.Listeners))
	for i := range e.Listeners {
		listeners[i] = &e.Listeners[i]
	}
	slices.SortStableFunc(listeners, func(a, b *Listener) int {
		return cmp.Or(cmp.Compare(diedOfAll(b.Counts), diedOfAll(a.Counts)), cmp.Compare(value(b.Syns), value(a.Syns)))
	})
	var out []event.ListenerView
	lines := []event.Timeline{}
	for _, l := range bound(listeners, maxListeners) {
		s := newSubject(e, l)
		out = append(out, event.ListenerView{
			Listener: l.ID, Processes: bound(l.Processes, maxProcesses), Counts: l.Counts, Syns: l.Syns, Accepts: l.Accepts,
			Drops: diedOfAll(l.Counts), LongestGapMs: l.LongestGapMs, AcceptWaits: l.Waits,
			Stacks: s.stacks(), WhatIf: s.whatIf,
		})
		if len(l.Timeline) > 0 && len(lines) < maxTimelines {
			lines = append(lines, timeline(l))
		}
	}
	return out, lines, unlisted(listeners[len(out):], e.GroupSyns != nil)
}

// unlisted sums up those that are not listed. grouped: those without a count are in that of all groups.
func unlisted(rest []*Listener, grouped bool) *event.Unlisted {
	if len(rest) == 0 {
		return nil
	}
	var syns uint64
	for _, l := range rest {
		if l.Syns == nil && !grouped {
			return &event.Unlisted{Listeners: uint64(len(rest))}
		}
		syns += value(l.Syns)
	}
	return &event.Unlisted{Listeners: uint64(len(rest)), Syns: &syns}
}

// timeline marks the throttled steps, and makes steps longer until they are few enough.
func timeline(l *Listener) event.Timeline {
	s := &subject{Listener: l}
	per := (len(l.Timeline) + event.MaxTimelinePoints - 1) / event.MaxTimelinePoints
	out := event.Timeline{Listener: &l.ID, StepMs: l.StepMs * uint32(per)}
	for chunk := range slices.Chunk(l.Timeline, per) {
		p := chunk[0]
		p.Throttled = s.throttled(p)
		for _, next := range chunk[1:] {
			p = merge(p, next)
			p.Throttled = p.Throttled || s.throttled(next)
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
	a.Arrivals, a.Retries = sum(a.Arrivals, b.Arrivals), sum(a.Retries, b.Retries)
	a.Accepts, a.Drops = sum(a.Accepts, b.Accepts), sum(a.Drops, b.Drops)
	return a
}

func sum(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	both := *a + *b
	return &both
}

// stacks puts equal samples together: those of what the threads mainly did under pressure first, then the commonest.
func (s *subject) stacks() []event.ThreadStack {
	type group struct {
		event.ThreadStack
		telling int // samples of what the findings tell
	}
	var groups []*group
	byKey := make(map[string]*group)
	before := make(map[uint64]uint32) // by thread
	mainly := s.mostDid()
	s.eachSample(func(t Thread, smp Sample, did doing) {
		if did == doingStarved { // whatever it was at when the sample was taken
			smp.State, smp.OnCPU, smp.Syscall = "R", false, ""
		}
		key := fmt.Sprintf("%d\n%d\n%s\n%v\n%s\n%v\n%s\n\n%s", t.PID, t.TID, smp.State, smp.Frozen, smp.Syscall, smp.OnCPU,
			strings.Join(smp.Kernel, "\n"), strings.Join(smp.User, "\n"))
		g := byKey[key]
		if g == nil {
			g = &group{ThreadStack: event.ThreadStack{PID: t.PID, TID: t.TID, Comm: t.Comm, State: smp.State, Frozen: smp.Frozen, Syscall: smp.Syscall,
				OnCPU: smp.OnCPU, Kernel: smp.Kernel, User: smp.User}}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.Samples++
		if since, ok := before[t.key()]; ok {
			g.Ms += uint64(smp.OffsetMs - min(since, smp.OffsetMs))
		}
		before[t.key()] = smp.OffsetMs
		if did == mainly && s.underPressure(smp) {
			g.telling++
		}
	})
	slices.SortStableFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.telling, a.telling), cmp.Compare(b.Samples, a.Samples))
	})
	var out []event.ThreadStack
	for _, g := range bound(groups, maxStacks) {
		out = append(out, g.ThreadStack)
	}
	return out
}

// mostDid is what the threads did for most of the judged time under pressure; [doingUnknown] where none is.
func (s *subject) mostDid() doing {
	most := doingUnknown
	for did, steps := range s.did {
		if steps > s.did[most] {
			most = doing(did)
		}
	}
	return most
}
