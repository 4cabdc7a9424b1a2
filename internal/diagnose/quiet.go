package diagnose

import (
	"fmt"

	"github.com/synspy/synspy/internal/event"
)

// quiet says what it means that nothing was dropped.
func quiet(e *Evidence) []*found {
	died := diedOfAll(e.Counts)
	if len(e.Ports) == 0 && len(e.Listeners) > 0 { // a scan of closed ports is not about these listeners
		died -= closedPorts(e)
	}
	if died > 0 || e.Silence != "" {
		return nil
	}
	var syns uint64
	known := !e.lacks(NeedSyns)
	for i := range e.Listeners {
		l := &e.Listeners[i]
		known = known && (l.Syns != nil || e.GroupSyns != nil)
		syns += value(l.Syns)
	}
	syns += value(e.GroupSyns)
	if !known {
		return nil
	}
	if syns > 0 {
		f := newFound(event.FindingHealthy, syns)
		f.Severity, f.Confidence = event.SeverityNote, event.ConfidenceProven
		f.saw("SYNs in the window", syns, "SYNs")
		f.saw("dropped or reset", uint64(0), "packets")
		f.saw("listeners", len(e.Listeners), "listeners")
		f.because = fmt.Sprintf("%s arrived and none was dropped", many(syns, "SYN"))
		if l := keptWaiting(e); l != nil {
			ms := standstillMs(l)
			f.saw("longest time without an accept while connections waited", ms, "ms")
			f.because += fmt.Sprintf(", but nobody accepted on %s for %s while connections waited in its queue", where(l.ID), seconds(ms))
			f.Title = f.because
			f.fix("look at why " + actors(l.Processes) + " did not accept: its threads below; who waits is connected, and unanswered")
		}
		f.fix("look behind accept(): the application's latency, TLS, what it calls", "or watch again while clients time out: synspy diagnose --duration 5m")
		return []*found{f}
	}
	if e.lacks(NeedIngress) {
		return nil
	}
	f := newFound(event.FindingNoSynArrived, 0)
	f.Severity, f.Confidence = event.SeverityNote, event.ConfidenceProven
	f.saw("SYNs in the window", uint64(0), "SYNs")
	f.saw("listeners", len(e.Listeners), "listeners")
	f.because = "no SYN reached this kernel's IP stack"
	if e.Filter != "" {
		f.saw("filter", e.Filter, "")
		f.because += " for " + e.Filter
	}
	if l := fullAtEnd(e); l != nil {
		f.saw("a listener whose accept queue was full at the end", fmt.Sprintf("%s: %d of %d", where(l.ID), l.ID.AcceptQueue.Len, l.ID.AcceptQueue.Limit), "")
		f.fix(fmt.Sprintf("watch for longer, while clients come: %s, and whoever holds it does not accept", queueFull(l)))
	}
	f.sawPrograms(e, anyProgram)
	f.lookAtPrograms(e, anyProgram)
	if len(e.Devices) > 0 {
		f.Settles = "tcpdump on these devices: it sees packets after XDP and before tc, so that XDP did not drop SYNs that it shows"
	}
	f.fix("check the filter: behind DNAT the port is the pod's, not the NodePort's",
		"look upstream: load balancer, security group, routing, the client itself")
	f.Title = f.because
	return []*found{f}
}

// keptWaiting is the listener whose connections waited longest without an accept: too long, though its queue had room for them.
func keptWaiting(e *Evidence) *Listener {
	var worst *Listener
	longest := float64(longWaitMs)
	for i := range e.Listeners {
		if ms := standstillMs(&e.Listeners[i]); ms >= longest {
			worst, longest = &e.Listeners[i], ms
		}
	}
	return worst
}

// fullAtEnd is a listener whose accept queue was over its limit when the window ended: that no SYN came does not clear it.
func fullAtEnd(e *Evidence) *Listener {
	for i := range e.Listeners {
		l := &e.Listeners[i]
		if q := l.ID.AcceptQueue; q != nil && q.Len > q.Limit && l.ClosedMs == nil {
			return l
		}
	}
	return nil
}

func queueFull(l *Listener) string {
	return fmt.Sprintf("the accept queue of %s is full (%d of %d)", where(l.ID), l.ID.AcceptQueue.Len, l.ID.AcceptQueue.Limit)
}
