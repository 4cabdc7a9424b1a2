// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/session"
)

// RecordFilter chooses among records what a live trace's filters choose in the
// kernel. The zero value lets all through.
type RecordFilter struct {
	filter load.Filter
	owner  owner.Filter
}

// OfRecords reads the filters for records of another time: nothing is looked up
// on this machine, so a namespace is known by its inode only. Errors wrap
// ErrUsage.
func OfRecords(s session.Selection) (RecordFilter, error) {
	if s.PID < 0 || s.PID > session.MostPID {
		return RecordFilter{}, cli.Usage("--pid %d is no process ID", s.PID)
	}
	cgroup, netns := s.Cgroup, s.NetNS
	if err := (owner.Filter{Cgroup: cgroup}).Validate(); err != nil {
		return RecordFilter{}, cli.Usage("--cgroup: %w", err)
	}
	pid := s.PID
	s.PID, s.Cgroup, s.NetNS = 0, "", ""
	var w session.Watch
	if err := s.Apply(&w); err != nil {
		return RecordFilter{}, err
	}
	f := RecordFilter{filter: w.Filter, owner: w.Owner}
	f.owner.PID, f.owner.Cgroup = uint32(pid), cgroup
	if err := session.Contradiction(&f.filter, f.owner); err != nil {
		return RecordFilter{}, err
	}
	if netns != "" {
		inode, err := strconv.ParseUint(netns, 10, 64)
		if err != nil || inode == 0 {
			return RecordFilter{}, cli.Usage(
				"--netns %q: records know a namespace by its inode only", netns)
		}
		f.filter.NetNS = inode
	}
	return f, nil
}

// answer is whether something is asked for, as far as the records tell.
type answer uint8

const (
	answerNo answer = iota
	answerUnsure
	answerYes
)

func answerOf(yes bool) answer {
	if yes {
		return answerYes
	}
	return answerNo
}

// drop reports whether a record is asked for. What a record does not say is not
// what was asked for.
func (f *RecordFilter) drop(d *event.Drop) bool {
	if !f.what(d.Cause, d.Stage) || !f.netns(d) || !f.called(d) {
		return false
	}
	if len(f.filter.Clients) > 0 &&
		(d.Client == nil || !contain(f.filter.Clients, d.Client.Addr)) {
		return false
	}
	return f.owned(d)
}

// owned reports whether a process that the filter asks for holds the record's listener.
func (f *RecordFilter) owned(d *event.Drop) bool {
	return f.owner == (owner.Filter{}) ||
		slices.ContainsFunc(d.Processes,
			func(p event.Process) bool { return f.owner.Matches(&p) })
}

// netns asks where the packet died, or else where the listener is.
func (f *RecordFilter) netns(d *event.Drop) bool {
	switch {
	case f.filter.NetNS == 0:
		return true
	case d.Listener != nil && d.Listener.NetNS != 0:
		return d.Listener.NetNS == f.filter.NetNS
	default:
		return d.NetNS == f.filter.NetNS
	}
}

// called asks the address that the client called, or else that of the listener.
func (f *RecordFilter) called(d *event.Drop) bool {
	switch {
	case len(f.filter.Ports) == 0 && len(f.filter.Servers) == 0:
		return true
	case d.Server != nil:
		return f.port(d.Server.Port) &&
			(len(f.filter.Servers) == 0 || contain(f.filter.Servers, d.Server.Addr))
	case d.Listener != nil:
		return f.port(d.Listener.Port) && f.listens(d.Listener.Addr) == answerYes
	default:
		return false
	}
}

func (f *RecordFilter) port(port uint16) bool {
	return len(f.filter.Ports) == 0 ||
		slices.ContainsFunc(f.filter.Ports, func(r load.PortRange) bool {
			return r.Low <= port && port <= r.High
		})
}

// listens asks an address that is listened on: which address a client of a wildcard called, it does
// not say.
func (f *RecordFilter) listens(addr netip.Addr) answer {
	switch {
	case len(f.filter.Servers) == 0:
		return answerYes
	case !addr.IsValid():
		return answerUnsure
	case !addr.IsUnspecified():
		return answerOf(contain(f.filter.Servers, addr))
	case addr.Is4() && !slices.ContainsFunc(f.filter.Servers,
		func(p netip.Prefix) bool { return p.Addr().Unmap().Is4() }):
		return answerNo
	default:
		return answerUnsure
	}
}

// what asks cause and stage. SYNs answered by a cookie died of nothing: a filter by cause lets them
// through, as in the kernel.
func (f *RecordFilter) what(cause event.Cause, stage event.Stage) bool {
	return (len(f.filter.Causes) == 0 || cause == event.CauseUnknown &&
		stage == event.StageSyn || slices.Contains(f.filter.Causes, cause)) &&
		(len(f.filter.Stages) == 0 || slices.Contains(f.filter.Stages, stage))
}

// held reports whether packets without a record of their own are asked for. Of them only cause,
// stage and listener are known; of the listener, what the records of its other packets said.
func (f *RecordFilter) suppressed(h *event.Suppressed, known listenerFacts) answer {
	switch {
	case h.Cause == event.CauseUnknown && h.Stage == event.StageUnknown: // any
		if f.all() {
			return answerYes
		}
		return answerUnsure
	case !f.what(h.Cause, h.Stage):
		return answerNo
	}
	if h.Listener == nil {
		return f.nowhere()
	}
	least := min(f.at(h.Listener, known), f.listens(h.Listener.Addr))
	if least == answerYes && len(f.filter.Clients) > 0 {
		return answerUnsure
	}
	return least
}

// at reports whether a listener is asked for. As in a trace, a wildcard's is, whatever address is
// asked for.
func (f *RecordFilter) at(l *event.Listener, known listenerFacts) answer {
	if f.filter.NetNS != 0 && l.NetNS != f.filter.NetNS {
		if l.NetNS == 0 {
			return answerUnsure
		}
		return answerNo
	}
	least := answerYes
	switch {
	case f.listens(l.Addr) == answerNo:
		return answerNo
	case known.otherPort &&
		len(f.filter.Ports) > 0: // packets reach it that called another port
		least = min(least, answerUnsure)
	case !f.port(l.Port):
		return answerNo
	}
	if f.owner != (owner.Filter{}) {
		least = min(least, known.owned)
	}
	return least
}

// nowhere is the answer for packets of which no listener is known.
func (f *RecordFilter) nowhere() answer {
	if f.anywhere() {
		return answerYes
	}
	return answerUnsure
}

// anywhere reports whether no filter asks for a place or a process.
func (f *RecordFilter) anywhere() bool {
	return f.filter.NetNS == 0 && len(f.filter.Ports) == 0 && len(f.filter.Servers) == 0 &&
		f.owner == (owner.Filter{})
}

// all reports whether nothing is kept out.
func (f *RecordFilter) all() bool {
	return f.anywhere() && len(f.filter.Clients) == 0 && len(f.filter.Causes) == 0 &&
		len(f.filter.Stages) == 0
}

func contain(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Contains(addr.Unmap()) || p.Contains(addr)
	})
}
