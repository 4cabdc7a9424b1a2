package app

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe"
)

// RecordFilter chooses among records what a live trace's filters choose in the
// kernel. The zero value lets all through.
type RecordFilter struct {
	filter probe.Filter
	owner  owner.Filter
}

// OfRecords reads the filters for records of another time: nothing is looked up
// on this machine, so a namespace is known by its inode only. Errors wrap
// ErrUsage.
func (s Selection) OfRecords() (RecordFilter, error) {
	if s.PID < 0 {
		return RecordFilter{}, usage("--pid %d is no process ID", s.PID)
	}
	cgroup, netns := s.Cgroup, s.NetNS
	if err := (owner.Filter{Cgroup: cgroup}).Validate(); err != nil {
		return RecordFilter{}, usage("--cgroup: %w", err)
	}
	pid := s.PID
	s.PID, s.Cgroup, s.NetNS = 0, "", ""
	var w Watch
	if err := s.Apply(&w); err != nil {
		return RecordFilter{}, err
	}
	f := RecordFilter{filter: w.Filter, owner: w.Owner}
	f.owner.PID, f.owner.Cgroup = uint32(pid), cgroup
	if err := contradiction(&f.filter, f.owner); err != nil {
		return RecordFilter{}, err
	}
	if netns != "" {
		inode, err := strconv.ParseUint(netns, 10, 64)
		if err != nil || inode == 0 {
			return RecordFilter{}, usage("--netns %q: records know a namespace by its inode only", netns)
		}
		f.filter.NetNS = inode
	}
	return f, nil
}

// drop tells whether a record is asked for. What a record does not say is not
// what was asked for.
func (f *RecordFilter) drop(d *event.Drop) bool {
	if !f.what(d.Cause, d.Stage) || !f.where(d.Listener, d.Server) {
		return false
	}
	if len(f.filter.Clients) > 0 && (d.Client == nil || !contain(f.filter.Clients, d.Client.Addr)) {
		return false
	}
	if f.owner == (owner.Filter{}) {
		return true
	}
	return slices.ContainsFunc(d.Processes, func(p event.Process) bool { return f.owner.Matches(&p) })
}

// held tells whether records that were held back may be asked for: they say
// nothing of clients and processes.
func (f *RecordFilter) held(h *event.Held) bool {
	return f.what(h.Cause, h.Stage) && f.where(h.Listener, nil)
}

func (f *RecordFilter) what(cause event.Cause, stage event.Stage) bool {
	return (len(f.filter.Causes) == 0 || slices.Contains(f.filter.Causes, cause)) &&
		(len(f.filter.Stages) == 0 || slices.Contains(f.filter.Stages, stage))
}

// where asks the address that the client called, or else that of the listener,
// whose wildcard may be any.
func (f *RecordFilter) where(listener *event.Listener, server *event.Endpoint) bool {
	if f.filter.NetNS != 0 && (listener == nil || listener.NetNS != f.filter.NetNS) {
		return false
	}
	if len(f.filter.Ports) == 0 && len(f.filter.Servers) == 0 {
		return true
	}
	var addr netip.Addr
	var port uint16
	switch {
	case server != nil:
		addr, port = server.Addr, server.Port
	case listener != nil:
		addr, port = listener.Addr, listener.Port
	default:
		return false
	}
	if len(f.filter.Ports) > 0 && !slices.ContainsFunc(f.filter.Ports, func(r probe.PortRange) bool {
		return r.Low <= port && port <= r.High
	}) {
		return false
	}
	return len(f.filter.Servers) == 0 || server == nil && addr.IsUnspecified() || contain(f.filter.Servers, addr)
}

func contain(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Contains(addr.Unmap()) || p.Contains(addr)
	})
}
