// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"net/netip"
	"slices"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
)

// recount counts those records of a recording that pass the filters given while reading, so that
// everything that is said of them rests on the same numbers. The zero value of what it counts is
// ready.
type recount struct {
	filter  *RecordFilter
	filters []event.Filter

	counts          []event.Count
	delivered       uint64 // records that passed, drops and cookies
	suppressed      uint64 // packets of the rows that passed
	lost            uint64
	cookies         uint64 // of them all, SYNs answered by a cookie
	unsure          uint64
	met             uint64 // packets of which the recording tells, whether they passed or not
	metCookies      uint64 // SYNs answered by a cookie, likewise
	surplus         []event.Suppressed
	handshakes      uint64
	tries           map[try]struct{}
	listeners       map[recordedListener]*listenerFacts
	filtered        map[ledgerKey]uint64 // what packets that did not pass moved the counters by
	handshakesShort bool
}

// listenerFacts is what the records of a listener said of it.
type listenerFacts struct {
	owned     answer // held by a process that is asked for: yes or no where all records agree
	otherPort bool   // a packet called another port than it listens on
}

// recordedListener is a listener as rows without processes name it.
type recordedListener struct {
	cookie, netns uint64
	addr          netip.Addr
	port          uint16
}

// try is a connection that is being made.
type try struct {
	netns          uint64
	client, server netip.AddrPort
}

type ledgerKey struct {
	netns   uint64
	counter string
}

// mostTries bounds the handshakes that are told apart.
const mostTries = 1 << 20

func newRecount(filter *RecordFilter, filters []event.Filter) *recount {
	return &recount{filter: filter, filters: filters, tries: make(map[try]struct{}),
		listeners: make(map[recordedListener]*listenerFacts), filtered: make(map[ledgerKey]uint64)}
}

// drop counts a record, and reports whether it passes the filter.
func (r *recount) drop(d *event.Drop) bool {
	r.learn(d)
	r.met++
	cookie := d.Type == "cookie"
	if cookie {
		r.metCookies++
	}
	if !r.filter.drop(d) {
		netns := d.NetNS
		if d.Listener != nil && d.Listener.NetNS != 0 {
			netns = d.Listener.NetNS
		}
		for _, name := range d.Kernel.Counters {
			r.filtered[ledgerKey{netns, name}]++
		}
		return false
	}
	r.delivered++
	if cookie {
		r.cookies++
		return true
	}
	r.counts = event.AddCount(r.counts,
		event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action, Count: 1})
	r.handshake(d)
	return true
}

func (r *recount) handshake(d *event.Drop) {
	if d.Attempt == 0 || d.Client == nil || d.Server == nil {
		return
	}
	key := try{d.NetNS, netip.AddrPortFrom(d.Client.Addr, d.Client.Port),
		netip.AddrPortFrom(d.Server.Addr, d.Server.Port)}
	if _, have := r.tries[key]; have && d.Attempt > 1 {
		return
	}
	if len(r.tries) >= mostTries {
		r.handshakesShort = r.handshakesShort || d.Attempt > 1
	} else {
		r.tries[key] = struct{}{}
	}
	r.handshakes++
}

// withoutRecord judges a row of packets that have no record of their own.
func (r *recount) withoutRecord(h *event.Suppressed) bool {
	r.met += h.Count
	cookie := h.Cause == event.CauseUnknown && h.Stage == event.StageSyn
	if cookie {
		r.metCookies += h.Count
	}
	switch r.filter.suppressed(h, r.facts(h.Listener)) {
	case answerUnsure:
		r.unsure += h.Count
		return false
	case answerNo:
		for _, c := range event.CountersOf(h.Cause, h.Stage, h.Action) {
			if h.Listener != nil {
				r.filtered[ledgerKey{h.Listener.NetNS, c.String()}] += h.Count
			}
		}
		return false
	}
	if h.Type == "lost" {
		r.lost += h.Count
	} else {
		r.suppressed += h.Count
	}
	switch {
	case cookie:
		r.cookies += h.Count
	case h.Cause != event.CauseUnknown:
		r.counts = event.AddCount(r.counts,
			event.Count{Cause: h.Cause, Stage: h.Stage, Action: h.Action,
				Count: h.Count})
	}
	return true
}

// pass takes a record that passed, but came after as many as were asked for.
func (r *recount) pass(d *event.Drop) {
	r.delivered--
	r.suppressed++
	h := event.Suppressed{Header: event.Head("suppressed"), Count: 1, Limit: event.LimitCount,
		Cause: d.Cause, Stage: d.Stage, Action: d.Action}
	if d.Listener != nil {
		l := *d.Listener
		l.AcceptQueue, l.SynQueue, l.Reuseport, l.Cgroup = nil, nil, nil, nil
		h.Listener = &l
	}
	i := slices.IndexFunc(r.surplus, func(b event.Suppressed) bool {
		return b.Cause == h.Cause && b.Stage == h.Stage && b.Action == h.Action &&
			keyOf(b.Listener) == keyOf(h.Listener)
	})
	if i < 0 {
		r.surplus = append(r.surplus, h)
		return
	}
	r.surplus[i].Count++
}

func keyOf(l *event.Listener) recordedListener {
	switch {
	case l == nil:
		return recordedListener{}
	case l.Cookie != 0:
		return recordedListener{cookie: l.Cookie}
	default:
		return recordedListener{netns: l.NetNS, addr: l.Addr, port: l.Port}
	}
}

// learn keeps what a record says of its listener, by the socket and by where it listens.
func (r *recount) learn(d *event.Drop) {
	l := d.Listener
	if l == nil {
		return
	}
	place := recordedListener{netns: l.NetNS, addr: l.Addr, port: l.Port}
	keys := []recordedListener{keyOf(l), place}
	if keys[0] == place {
		keys = keys[:1]
	}
	owned := answerOf(r.filter.owned(d))
	for _, key := range keys {
		have := r.listeners[key]
		if have == nil {
			have = &listenerFacts{owned: owned}
			r.listeners[key] = have
		}
		if have.owned != owned || len(d.Processes) == 0 &&
			r.filter.owner != (owner.Filter{}) {
			have.owned = answerUnsure
		}
		have.otherPort = have.otherPort || d.Server != nil && d.Server.Port != l.Port
	}
}

// facts is what is known of a listener; nothing but that of one that had no record.
func (r *recount) facts(l *event.Listener) listenerFacts {
	if have := r.listeners[keyOf(l)]; l != nil && have != nil {
		return *have
	}
	return listenerFacts{owned: answerUnsure}
}

// needed reports whether the recorded summary is not that of what passed.
func (r *recount) needed() bool { return !r.filter.all() || len(r.surplus) > 0 }

// text says what the summary is of; empty where only --count kept records from being shown.
func (r *recount) text() string {
	if r.filter.all() {
		return ""
	}
	return "; the summary is of what passes " + event.FilterText(r.filters)
}

// about says what is not known.
func (r *recount) about() *event.Recount {
	return &event.Recount{Filters: r.filters, Unsure: r.unsure,
		HandshakesAtLeast: r.handshakesShort || r.suppressed+r.lost > 0 || r.unsure > 0}
}

// summary is the recorded one with the numbers of what passed. The ledger is of whole namespaces:
// only a filter by namespace narrows it, and what other filters kept out is in its rows, as far as
// records tell.
func (r *recount) summary(s *event.Summary) *event.Summary {
	out, about := *s, r.about()
	if r.filter.all() { // there was only more than was to be shown
		out.Delivered, out.Suppressed = r.delivered,
			s.Suppressed+s.Delivered-min(s.Delivered, r.delivered)
		return &out
	}
	if all := s.Delivered + s.Suppressed + s.Lost; all > r.met { // records that are not in the file
		about.Unsure += all - r.met
	}
	if s.Cookies > r.metCookies {
		about.UnsureCookies = s.Cookies - r.metCookies
	}
	if before := s.Recount; before != nil {
		about.Unsure += before.Unsure
		about.UnsureSyns, about.UnsureCookies = before.UnsureSyns,
			about.UnsureCookies+before.UnsureCookies
		about.HandshakesAtLeast = about.HandshakesAtLeast || before.HandshakesAtLeast
		about.Filters = slices.Concat(before.Filters, about.Filters)
	}
	about.HandshakesAtLeast = about.HandshakesAtLeast || about.Unsure > 0
	out.Handshakes = r.handshakes
	out.Counts = append([]event.Count{}, r.counts...)
	out.Delivered, out.Suppressed, out.Lost, out.Cookies = r.delivered, r.suppressed, r.lost,
		r.cookies
	if r.filter.anywhere() && len(r.filter.filter.Stages) == 0 &&
		len(r.filter.filter.Clients) == 0 { // as many as there were
		out.Cookies, about.UnsureCookies = s.Cookies, 0
	}
	out.Seen = r.seen(s.Seen, about)
	out.Ledger = r.ledger(s.Ledger)
	if r.filter.filter.NetNS != 0 {
		out.Balance()
	}
	out.Recount = about
	return &out
}

// seen leaves out the listeners that are not asked for.
func (r *recount) seen(rows []event.Seen, about *event.Recount) []event.Seen {
	kept := []event.Seen{}
	for _, row := range rows {
		ask := r.filter.nowhere()
		if !row.Others {
			ask = r.filter.at(&row.Listener, r.facts(&row.Listener))
		}
		switch ask {
		case answerYes:
			kept = append(kept, row)
		case answerUnsure:
			about.UnsureSyns += row.Syn
		}
	}
	return kept
}

func (r *recount) ledger(rows []event.LedgerRow) []event.LedgerRow {
	kept := []event.LedgerRow{}
	for _, row := range rows {
		if r.filter.filter.NetNS != 0 && row.NetNS != r.filter.filter.NetNS {
			continue
		}
		if !row.Shared {
			row.Filtered = min(row.Synspy,
				row.Filtered+r.filtered[ledgerKey{row.NetNS, row.Counter}])
		}
		kept = append(kept, row)
	}
	return kept
}
