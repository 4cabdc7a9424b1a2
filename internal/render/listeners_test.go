// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

// crowdedListing has more to say in every column than there is room for.
func crowdedListing() []event.Listing {
	d := typical()
	for i := range d.Processes {
		d.Processes[i].Comm = "ev\x1b[2J\n\"<b>\xff\u202e"
		d.Processes[i].PID = 4194304
	}
	rate, yes := 123456.7, false
	l := event.Listing{Header: event.Head("listener"), Time: d.Time, Listener: *d.Listener,
		NetNS:  "a-namespace\nwith-a-name",
		V6Only: &yes, Backlog: &event.Backlog{Limit: 128, By: event.BacklogEqual},
		Drops:     &event.Drops{Count: 12345678, Approximate: true},
		Processes: d.Processes, OwnersKnown: true, Cgroup: d.Cgroup, Container: d.Container,
		Pod: d.Pod,
		Warnings: []event.Warning{{ID: event.WarnCapped, Text: "something is \x1b[31mwrong",
			Evidence: []string{"one thing", "another \x00 thing"}}}}
	l.Listener.Addr = netip.MustParseAddr("2001:db8:85a3:1234:5678:8a2e:370:7334")
	l.Listener.AcceptQueue, l.Listener.SynQueue = &event.Queue{Len: 65535, Limit: 65535},
		&event.SynQueue{Len: 65535, Limit: 65535}
	rated := l
	rated.Rates = &event.Rates{SYNs: &rate, Accepts: &rate}
	unknownListing := event.Listing{Listener: event.Listener{Port: 80}}
	nobodys := event.Listing{Listener: event.Listener{Addr: netip.IPv4Unspecified(), Port: 80},
		OwnersKnown: true}
	return []event.Listing{l, rated, unknownListing, nobodys}
}

// TestListingsWidth: the table fits the screen, whatever is in it, and nothing in it acts.
func TestListingsWidth(t *testing.T) {
	all := crowdedListing()
	for _, list := range [][]event.Listing{all, all[:1], all[2:]} {
		for _, width := range []int{0, 80, 99, 100, 120, 200} {
			var buf bytes.Buffer
			if err := writeListings(&buf, list, Options{Width: width}); err != nil {
				t.Fatal(err)
			}
			limit := 120
			if width > 0 && width < narrowBelow {
				limit = 80
			}
			for line := range strings.Lines(buf.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line,
					"\n")); n > max(limit, width) {
					t.Errorf("width %d: %d characters: %s", width, n, line)
				}
			}
			if strings.ContainsAny(buf.String(), "\x1b\x00\u202e") ||
				!utf8.Valid(buf.Bytes()) {
				t.Errorf("width %d: unsafe: %q", width, buf.String())
			}
		}
	}
}

func TestListingsUnknown(t *testing.T) {
	var buf bytes.Buffer
	if err := writeListings(&buf, crowdedListing()[2:], Options{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(buf.String(), "\n")
	if strings.Contains(lines[1], "(none)") || !strings.Contains(lines[2], "(none)") {
		t.Errorf("an owner that is not known, and none:\n%s", buf.String())
	}
	buf.Reset()
	if err := writeListings(&buf, crowdedListing()[2:3],
		Options{Format: FormatJSON}); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"drops", "processes", "syn_queue", "accept_queue",
		"backlog", "rates"} {
		if strings.Contains(buf.String(), member) {
			t.Errorf("%s is not known, and said: %s", member, buf.String())
		}
	}
}

func writeListings(w io.Writer, list []event.Listing, opts Options) error {
	l := NewListingWriter(w, slices.ContainsFunc(list, func(l event.Listing) bool {
		return l.Rates != nil
	}), opts)
	for i := range list {
		if err := l.Write(&list[i]); err != nil {
			return err
		}
	}
	return l.Close()
}

// TestListingJSON holds the encoder and encoding/json together on random listeners that fill every
// field.
func TestListingJSON(t *testing.T) {
	rounds := uint64(20_000)
	if testing.Short() {
		rounds = 1000
	}
	var s jsonStream
	for seed := range rounds {
		l := random[event.Listing](seed)
		head(&l.Header, "listener") // the only things that the encoder adds
		l.Warnings = list(l.Warnings)
		var want bytes.Buffer
		if err := WriteJSON(&want, l); err != nil {
			t.Fatal(err)
		}
		got := append(s.appendListing(nil, l), '\n')
		if !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("seed %d:\n got %s\nwant %s", seed, got, want.Bytes())
		}
		checkJSON(t, got)
	}
}

// TestListingsAllocate: a listener costs no allocation, as JSON or as a table's row, but for the
// growth of the table.
func TestListingsAllocate(t *testing.T) {
	d := typical()
	l := event.Listing{Header: event.Head("listener"), Time: d.Time, Listener: *d.Listener,
		Processes: d.Processes, OwnersKnown: true,
		Cgroup: d.Cgroup, Container: d.Container, Pod: d.Pod, Drops: &event.Drops{Count: 1,
			Approximate: true}}
	for format, most := range map[Format]float64{FormatJSON: 0, FormatTable: 0.1} {
		w := NewListingWriter(io.Discard, false, Options{Format: format})
		got := testing.AllocsPerRun(1000, func() {
			if err := w.Write(&l); err != nil {
				t.Fatal(err)
			}
		})
		if got > most {
			t.Errorf("format %d: %v allocations a listener", format, got)
		}
	}
}
