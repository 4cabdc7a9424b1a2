// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

func TestWarnings(t *testing.T) {
	n := func(v uint32) *uint32 { return &v }
	rate := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		change   func(*event.Listing)
		len      uint32
		limit    uint32
		settings kernel.ListenSettings
		asleep   []string
		want     []string
	}{
		"idle": {limit: 128,
			settings: kernel.ListenSettings{Somaxconn: n(4096), Syncookies: n(1)}},
		"half is not over half": {len: 64, limit: 128},
		"over half": {len: 65, limit: 128,
			want: []string{"accept_queue_over_half"}},
		"equal to the usual": {limit: 4096,
			settings: kernel.ListenSettings{Somaxconn: n(4096)}},
		"capped": {limit: 128,
			settings: kernel.ListenSettings{Somaxconn: n(128)},
			want:     []string{"backlog_capped"}},
		"below a low somaxconn": {limit: 64,
			settings: kernel.ListenSettings{Somaxconn: n(128)}},
		"tiny and idle": {limit: 5},
		"tiny, drops once": {limit: 5,
			change: func(l *event.Listing) { l.Drops = &event.Drops{Count: 3} }},
		"tiny and half full": {len: 3, limit: 5,
			want: []string{"accept_queue_over_half", "backlog_tiny"}},
		"tiny, SYNs": {limit: 5,
			change: func(l *event.Listing) {
				l.Rates = &event.Rates{SYNs: rate(20)}
			}, want: []string{"backlog_tiny"}},
		"cookies off": {limit: 128,
			settings: kernel.ListenSettings{Syncookies: n(0)},
			want:     []string{"syncookies_off"}},
		"SYN queue": {limit: 128,
			change: func(l *event.Listing) {
				l.Listener.SynQueue = &event.SynQueue{Len: 65, Limit: 128}
			}, want: []string{"syn_queue_over_half"}},
		"nobody holds it": {len: 1, limit: 128,
			change: func(l *event.Listing) {
				l.Processes = nil
			}, want: []string{"nobody_accepts"}},
		"holders are not known": {len: 1, limit: 128,
			change: func(l *event.Listing) { l.Processes, l.OwnersKnown = nil, false }},
		"clients, no accepts": {len: 1, limit: 128,
			change: func(l *event.Listing) {
				l.Rates = &event.Rates{SYNs: rate(2),
					Accepts: rate(0)}
			}, want: []string{"nobody_accepts"}},
		"accepts are not known": {len: 1, limit: 128,
			change: func(l *event.Listing) { l.Rates = &event.Rates{SYNs: rate(2)} }},
		"asleep": {len: 1, limit: 128, asleep: []string{"futex"},
			want: []string{"asleep_elsewhere"}},
		"the limit is not known": {change: func(l *event.Listing) {
			l.Listener.AcceptQueue = nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := listingOf(c.len, c.limit)
			if c.change != nil {
				c.change(&l)
			}
			l.Backlog = backlogOf(l.Listener.AcceptQueue, c.settings)
			var got []string
			for _, w := range warningsOf(&l, c.settings, c.asleep) {
				got = append(got, w.ID)
				if len(w.Evidence) == 0 || slices.Contains(w.Evidence, "") ||
					w.Text == "" {
					t.Errorf("%+v: no evidence", w)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("warnings %v, want %v", got, c.want)
			}
		})
	}
}

// listingOf is of a listener with a queue of that length and limit, and a process.
func listingOf(length, limit uint32) event.Listing {
	return event.Listing{Listener: event.Listener{Addr: netip.IPv4Unspecified(), Port: 80,
		AcceptQueue: &event.Queue{Len: length,
			Limit: limit}}, OwnersKnown: true, Processes: []event.Process{{PID: 1}}}
}

// TestFullIsNoHalf: what a warning calls a queue is what its numbers say.
func TestFullIsNoHalf(t *testing.T) {
	for length := range uint32(12) {
		l := listingOf(length, 8)
		l.Listener.SynQueue = &event.SynQueue{Len: length, Limit: 8}
		l.Backlog = backlogOf(l.Listener.AcceptQueue, kernel.ListenSettings{})
		for _, w := range warningsOf(&l, kernel.ListenSettings{}, nil) {
			full := w.ID == event.WarnAcceptQueue && length > 8 ||
				w.ID == event.WarnSynQueue && length >= 8
			if (w.ID == event.WarnAcceptQueue || w.ID == event.WarnSynQueue) &&
				strings.Contains(w.Text, "is full") != full {
				t.Errorf("%d of 8: %s", length, w.Text)
			}
		}
	}
}
