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
		out = append(out, event.ListenerView{
			Listener: l.ID, Processes: bound(l.Processes, maxProcesses), Counts: l.Counts, Syns: l.Syns, Accepts: l.Accepts,
			Drops: diedOfAll(l.Counts), LongestGapMs: l.LongestGapMs, AcceptWaits: l.Waits,
			Stacks: stacks(l), WhatIf: whatIf(l),
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

// stacks puts equal samples together, the commonest first.
func stacks(l *Listener) []event.ThreadStack {
	threads := suspectsOf(l).threads
	byKey := map[string]*event.ThreadStack{}
	var order []string
	for _, t := range threads {
		before := uint32(0)
		for i, smp := range t.Samples {
			state := smp.State
			key := fmt.Sprintf("%d\n%d\n%s\n%s\n%v\n%s\n\n%s", t.PID, t.TID, state, smp.Syscall, smp.OnCPU,
				strings.Join(smp.Kernel, "\n"), strings.Join(smp.User, "\n"))
			s := byKey[key]
			if s == nil {
				s = &event.ThreadStack{PID: t.PID, TID: t.TID, Comm: t.Comm, State: state, Syscall: smp.Syscall, OnCPU: smp.OnCPU,
					Kernel: smp.Kernel, User: smp.User}
				byKey[key] = s
				order = append(order, key)
			}
			s.Samples++
			if i > 0 {
				s.Ms += uint64(smp.OffsetMs - min(before, smp.OffsetMs))
			}
			before = smp.OffsetMs
		}
	}
	var out []event.ThreadStack
	for _, key := range order {
		out = append(out, *byKey[key])
	}
	slices.SortStableFunc(out, func(a, b event.ThreadStack) int { return cmp.Compare(b.Samples, a.Samples) })
	return bound(out, maxStacks)
}
