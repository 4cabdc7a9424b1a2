// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"slices"

	"github.com/synspy/synspy/internal/collect/queues"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/session"
)

// addMembers lists with each listener the sockets that share its port by SO_REUSEPORT: those at its
// place that the kernel has in a group at all. Fewer than the group has are not all of it, more are
// more than one.
func addMembers(all []evidence.Listener, rows map[uint64]*queues.Row) {
	groups := make(map[session.Place][]int)
	for i := range all {
		r := rows[all[i].ID.Key]
		if all[i].ClosedMs == nil && r != nil && r.Listener.Reuseport.Members > 1 {
			at := session.PlaceOf(&r.Listener)
			groups[at] = append(groups[at], i)
		}
	}
	for _, group := range groups {
		if slices.ContainsFunc(group, func(i int) bool {
			return int(rows[all[i].ID.Key].Listener.Reuseport.Members) != len(group)
		}) {
			continue
		}
		var members []evidence.Member
		of := event.Reuseport{Members: uint32(len(group))}
		for _, i := range group {
			members = append(members, memberOf(&all[i]))
			if q := all[i].ID.AcceptQueue; q != nil && q.Len > q.Limit {
				of.Full++
			}
		}
		for _, i := range group {
			all[i].Members, all[i].ID.Reuseport = members, &of
		}
	}
}

func memberOf(l *evidence.Listener) evidence.Member {
	m := evidence.Member{Listener: l.ID, Processes: l.Processes, Accepts: l.Accepts}
	var dropped, full uint64
	var busiest uint32
	for _, count := range l.Counts {
		if count.Cause == event.CauseAcceptQueueFull {
			dropped += count.Count
		}
	}
	for _, p := range l.Timeline {
		if q := p.AcceptQueue; q != nil {
			busiest = max(busiest, q.Len)
			if q.Len > q.Limit {
				full += uint64(l.StepMs)
			}
		}
	}
	m.Dropped, m.FullMs, m.BusiestLen = &dropped, &full, &busiest
	return m
}

// addReplaced finds the sockets that took the place of those that closed.
func addReplaced(all []evidence.Listener) {
	for i := range all {
		if all[i].ClosedMs == nil {
			continue
		}
		at := slices.IndexFunc(all, func(l evidence.Listener) bool {
			return l.ClosedMs == nil && l.ID.Port == all[i].ID.Port &&
				l.ID.NetNS == all[i].ID.NetNS && l.ID.Addr == all[i].ID.Addr
		})
		if at >= 0 {
			id := all[at].ID
			all[i].ReplacedBy = &id
		}
	}
}
