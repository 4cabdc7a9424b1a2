// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// DeferredCount is how many of the listener's ACKs TCP_DEFER_ACCEPT ignored.
func (l *Listener) DeferredCount() uint64 {
	var n uint64
	for _, c := range l.Counts {
		if c.Cause == event.CauseDeferAccept {
			n += c.Count
		}
	}
	return n
}

// HoldsBack reports whether most of what stood in the SYN queue at its longest is what
// TCP_DEFER_ACCEPT holds back.
func (l *Listener) HoldsBack() bool {
	if l.Deferred != nil && l.Deferred.Held == 0 {
		return false
	}
	longest := uint64(0)
	if q := l.ID.SynQueue; q != nil {
		longest = uint64(q.Len)
	}
	for _, p := range l.Timeline {
		if p.SynQueue != nil {
			longest = max(longest, uint64(p.SynQueue.Len))
		}
	}
	return l.DeferredCount() > 0 && 2*l.DeferredCount() >= longest
}

// MostFinished reports whether nearly as many handshakes were finished as begun.
func (l *Listener) MostFinished() bool {
	return l.Finished != nil && l.Syns != nil && float64(*l.Finished) >= 0.9*float64(*l.Syns)
}

// UnsentCount is how many handshakes were given up before their retries ran out. With one retry or
// none that is what retries are.
func (l *Listener) UnsentCount() uint64 {
	if l.Sysctls.SynackRetries != nil && *l.Sysctls.SynackRetries < 2 {
		return 0
	}
	return min(Value(l.Unsent), l.Dropped(event.CauseHandshakeExpired))
}

// Stack is the user's, where it is known.
func (smp Sample) Stack() []string {
	if len(smp.User) > 0 {
		return smp.User
	}
	return smp.Kernel
}

// Key distinguishes threads.
func (t Thread) Key() uint64 { return uint64(t.PID)<<32 | uint64(t.TID) }

// InAccept reports whether the thread was seen on a CPU in accept().
func (smp Sample) InAccept() bool {
	return smp.OnCPU && (Has(smp.Kernel, acceptFrames) || Has(Bound(smp.User, 1), acceptCalls))
}

// StandsBy reports whether a thread is called an acceptor only because it is the only one of a
// process that has the socket, and does something else: it was seen to wait for other descriptors
// alone, or others are known to accept, as the workers of a master do that has opened the socket
// for them.
func (l *Listener) StandsBy(t Thread) bool {
	if !t.Alone {
		return false
	}
	elsewhere := false
	for _, smp := range t.Samples {
		if smp.Polls == nil {
			continue
		}
		if *smp.Polls {
			return false
		}
		elsewhere = true
	}
	others := slices.ContainsFunc(l.Processes,
		func(p event.Process) bool { return p.Role == event.RoleAcceptor })
	return elsewhere || others && !slices.ContainsFunc(l.Processes, func(p event.Process) bool {
		return p.PID == t.PID && p.Role == event.RoleAcceptor
	})
}

// RanWithAccepts is the part of the steps with accepts in which the thread ran: -1 where that is
// not known. A thread cannot accept without running. That it ran at some time since a sample long
// before says little, so that is asked only where nothing else is known; that it did not run all
// that time says as much as ever.
func (l *Listener) RanWithAccepts(t Thread) float64 {
	if part := l.ranInSteps(t, func(smp Sample) bool {
		return !smp.Calm ||
			*smp.RunMs == 0
	}); part >= 0 {
		return part
	}
	return l.ranInSteps(t, func(Sample) bool { return true })
}

// ranInSteps is the same by those samples that tell.
func (l *Listener) ranInSteps(t Thread, tells func(Sample) bool) float64 {
	ran := make(map[int]bool) // of those steps for which there is a sample
	for _, smp := range t.Samples {
		if smp.RunMs != nil && l.StepMs > 0 && tells(smp) {
			i := int(smp.OffsetMs / l.StepMs)
			ran[i] = ran[i] || *smp.RunMs > 0
		}
	}
	var in, all float64
	for i, p := range l.Timeline {
		if Value(p.Accepts) == 0 {
			continue
		}
		now, known := ran[i]
		next, later := ran[i+1] // what ran since the sample before shows in the next one
		if !known && !later {
			continue
		}
		all++
		if now || next {
			in++
		}
	}
	if all < fewAccepts {
		return -1
	}
	return in / all
}

var acceptFrames = []string{"inet_csk_accept", "inet_accept", "do_accept", "__sys_accept4",
	"__x64_sys_accept4", "__x64_sys_accept", "__arm64_sys_accept4"}

// acceptCalls are what a C library calls it.
var acceptCalls = []string{"accept", "accept4", "__libc_accept", "__libc_accept4"}

// Has reports whether a stack has one of the functions in it, whatever follows their names (+0x1f).
func Has(stack, functions []string) bool {
	return slices.ContainsFunc(stack, func(frame string) bool {
		name, _, _ := strings.Cut(frame, "+")
		return slices.Contains(functions, name)
	})
}

// fewAccepts are too few such steps to tell by.
const fewAccepts = 3

// Bound cuts a list.
func Bound[T any](list []T, most int) []T {
	if len(list) > most {
		return slices.Clone(list[:most])
	}
	return list
}
