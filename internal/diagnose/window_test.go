// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net/netip"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// The windows of the tests are made by a small queue of their own: limit+1 fit, clients try once,
// so that drops, lengths and accepts are consistent with each other.

const stepMs = 50

func ptr[T any](v T) *T { return &v }

// rate gives the steps of a window so many a second, evenly.
func rate(seconds int, perSecond float64) []uint64 {
	out := make([]uint64, seconds*1000/stepMs)
	var owed float64
	for i := range out {
		owed += perSecond * stepMs / 1000
		out[i] = uint64(owed)
		owed -= float64(out[i])
	}
	return out
}

// during changes the steps of a time, in ms.
func during(steps []uint64, from, to int, to0 func(uint64) uint64) []uint64 {
	for i := from / stepMs; i < min(to/stepMs, len(steps)); i++ {
		steps[i] = to0(steps[i])
	}
	return steps
}

func none(uint64) uint64                { return 0 }
func plus(n uint64) func(uint64) uint64 { return func(v uint64) uint64 { return v + n } }

// listener plays arrivals against what could be accepted in each step.
func listener(limit uint32, arrivals, capacity []uint64) evidence.Listener {
	l := evidence.Listener{
		ID: event.Listener{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443, Cookie: 4711,
			Inode: 99, NetNS: 4026531840,
			Proof: event.ProofSocket, AcceptQueue: &event.Queue{Limit: limit}},
		Processes: []event.Process{{PID: 812, Comm: "server", Role: event.RoleAcceptor}},
		Syns:      ptr(uint64(0)), Accepts: ptr(uint64(0)), StepMs: stepMs,
		RetriesCounted: true,
		Sysctls: evidence.Sysctls{Syncookies: ptr(uint32(1)),
			MaxSynBacklog: ptr(uint32(1024)), Somaxconn: ptr(uint32(4096)),
			AbortOnOverflow: ptr(uint32(0)), SynackRetries: ptr(uint32(5))},
	}
	var length, drops uint64
	for i := range arrivals {
		p := event.TimelinePoint{OffsetMs: uint32(i * stepMs), Arrivals: ptr(arrivals[i]),
			Retries: ptr(uint64(0)),
			Accepts: ptr(uint64(0)), Drops: ptr(uint64(0)), AcceptQueue: &event.Queue{
				Limit: limit}}
		for range arrivals[i] {
			if length > uint64(limit) {
				*p.Drops++
				continue
			}
			length++
		}
		p.AcceptQueue.Len = uint32(length)
		*p.Accepts = min(length, capacity[i])
		length -= *p.Accepts
		*l.Syns += arrivals[i]
		*l.Accepts += *p.Accepts
		drops += *p.Drops
		l.Timeline = append(l.Timeline, p)
	}
	l.ID.AcceptQueue.Len = uint32(length)
	if drops > 0 {
		l.Counts = []event.Count{{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: drops}}
	}
	return l
}

// evidenceOf is a window with these listeners and everything collected.
func evidenceOf(listeners ...evidence.Listener) *evidence.Evidence {
	e := &evidence.Evidence{WindowMs: 10_000, Listeners: listeners, Balanced: ptr(true)}
	for _, l := range listeners {
		if n := uint64(len(l.Timeline)) * stepMs; n > 0 {
			e.WindowMs = n
		}
		e.Counts = append(e.Counts, l.Counts...)
	}
	return e
}

// thread samples a thread in each step as the function says.
func thread(l evidence.Listener, acceptor bool,
	sample func(ms int) evidence.Sample) evidence.Listener {
	t := evidence.Thread{PID: 812, TID: 812 + uint32(len(l.Threads)), Comm: "server",
		Acceptor: acceptor}
	for i := range l.Timeline {
		s := sample(i * stepMs)
		s.OffsetMs = uint32(i*stepMs + 10)
		t.Samples = append(t.Samples, s)
	}
	l.Threads = append(l.Threads, t)
	return l
}

// inherited is 10 s of a listener whose process accepts for 3 s and ends; a child of it has the
// socket open and sleeps.
func inherited() evidence.Listener {
	l := listener(4, rate(10, 50), during(rate(10, 50), 3000, 10_000, none))
	ran, slept := 5.0, 0.0
	gone := thread(l, true, func(int) evidence.Sample {
		return evidence.Sample{State: "R",
			RunMs: &ran}
	}).Threads[0]
	gone.PID, gone.TID, gone.Alone = 811, 811, true
	gone.Samples = gone.Samples[:3000/stepMs]
	l = thread(l, true, func(int) evidence.Sample { s := inSleep; s.RunMs = &slept; return s })
	l.Threads[0].Alone = true
	l.Threads = append(l.Threads, gone)
	return l
}

func died1(l evidence.Listener, c event.Cause, s event.Stage, a event.Action,
	n uint64) evidence.Listener {
	l.Counts = append(l.Counts, event.Count{Cause: c, Stage: s, Action: a, Count: n})
	return l
}

// What a thread may be seen doing.
var (
	inPoll = evidence.Sample{State: "S", Syscall: "epoll_wait", Kernel: []string{"ep_poll",
		"do_epoll_wait"}}
	inAccept = evidence.Sample{State: "S", Syscall: "accept4",
		Kernel: []string{"inet_csk_accept", "do_accept"}}
	inSleep = evidence.Sample{State: "S", Syscall: "clock_nanosleep",
		Kernel: []string{"hrtimer_nanosleep"}, User: []string{"clock_nanosleep", "handle",
			"main"}}
	computing = evidence.Sample{State: "R", OnCPU: true, User: []string{"bn_mul_mont",
		"SSL_do_handshake", "main"}}
	accepting = evidence.Sample{State: "R", OnCPU: true,
		Kernel: []string{"inet_csk_accept+0x1f", "do_accept"}, User: []string{"accept4"}}
	stopped  = evidence.Sample{State: "T"}
	starving = evidence.Sample{State: "R", RunMs: ptr(1.0), DelayMs: ptr(48.0)}
	running  = evidence.Sample{State: "R", RunMs: ptr(48.0), DelayMs: ptr(1.0)}
	inSelect = evidence.Sample{State: "S", Syscall: "pselect6", Kernel: []string{"do_select",
		"core_sys_select"}}
	// Threads whose running is known.
	waitingAside = evidence.Sample{State: "S", Syscall: "epoll_wait",
		Kernel: []string{"ep_poll"}, RunMs: ptr(0.0), DelayMs: ptr(0.0)}
	inRead = evidence.Sample{State: "S", Syscall: "read", Kernel: []string{"pipe_read"},
		RunMs: ptr(0.0), DelayMs: ptr(0.0)}
	inSleepBetween = evidence.Sample{State: "S", Syscall: "clock_nanosleep",
		Kernel: []string{"hrtimer_nanosleep"}, RunMs: ptr(0.2), DelayMs: ptr(0.0)}

	readyInPoll = evidence.Sample{State: "S", Syscall: "epoll_wait",
		Kernel: []string{"ep_poll"}, Polls: ptr(true), RunMs: ptr(0.1), DelayMs: ptr(0.0)}
	elsewhereInPoll = evidence.Sample{State: "S", Syscall: "epoll_wait",
		Kernel: []string{"ep_poll"}, Polls: ptr(false), RunMs: ptr(0.0), DelayMs: ptr(0.0)}
	inGoPoll = evidence.Sample{State: "S", Syscall: "epoll_pwait",
		Kernel: []string{"ep_poll"}, User: []string{"runtime.netpoll",
			"runtime.findRunnable", "runtime.mcall"},
		RunMs: ptr(0.1), DelayMs: ptr(0.0)}
	parked = evidence.Sample{State: "S", Syscall: "futex", User: []string{"runtime.futex",
		"runtime.stopm", "runtime.mcall"}, RunMs: ptr(0.0), DelayMs: ptr(0.0)}

	unknowing = evidence.Sample{State: "S"}
)

func always(s evidence.Sample) func(int) evidence.Sample {
	return func(int) evidence.Sample { return s }
}

// between is one thing for a time, in ms, and another before and after.
func between(from, to int, in, out evidence.Sample) func(int) evidence.Sample {
	return func(ms int) evidence.Sample {
		if ms >= from && ms < to {
			return in
		}
		return out
	}
}

// blockedWindow is 10 s at 100 SYNs/s, in which a loop that is otherwise quick stands still from 2
// to 7 s.
func blockedWindow(limit uint32) evidence.Listener {
	return listener(limit, rate(10, 100), during(rate(10, 2000), 2000, 7000, none))
}

// burstWindow is 10 s at 20 SYNs/s with 600 within 100 ms, against a loop of 2,000/s.
func burstWindow(limit uint32) evidence.Listener {
	return listener(limit, during(rate(10, 20), 4000, 4100, plus(300)), rate(10, 2000))
}

// tinyWindow is 10 s of 6 at once each second, against a quick loop.
func tinyWindow(limit uint32) evidence.Listener {
	arrivals := rate(10, 0)
	for ms := 0; ms < 10_000; ms += 1000 {
		arrivals[ms/stepMs] = 6
	}
	return listener(limit, arrivals, rate(10, 2000))
}
