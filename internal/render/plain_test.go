// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestPlain: what is for programs has every name whole, and numbers of digits alone.
func TestPlain(t *testing.T) {
	const long = "a-name-that-is-longer-than-any-column-of-any-table-is-wide-0123456789"
	drop := *typical()
	drop.Processes = []event.Process{{PID: 1234567, Comm: long}}
	drop.Container, drop.Pod, drop.Cgroup = &event.Container{ID: long}, nil, nil
	listing := event.Listing{Listener: *drop.Listener, NetNS: long, Processes: drop.Processes,
		Container: drop.Container, OwnersKnown: true,
		Warnings: []event.Warning{{ID: event.WarnCapped, Text: "capped"}}}
	counters := event.Counters{NetNS: 4026531840, Name: long,
		Counters: []event.CounterValue{{Name: "ListenDrops", Value: 1234567,
			Delta: ref(uint64(1234567)), Rate: ref(1234567.0)}}}
	tables := map[string]func(*bytes.Buffer, Options) error{
		"stream": func(w *bytes.Buffer, o Options) error {
			s := NewStream(w, o)
			if err := s.Drop(&drop); err != nil {
				return err
			}
			return s.Flush()
		},
		"summary": func(w *bytes.Buffer, o Options) error {
			s := NewStream(w, o)
			if err := s.Suppressed(event.Suppressed{Header: event.Head("suppressed"),
				Count: 1234567}); err != nil {
				return err
			}
			return s.Summary(event.Summary{Counts: []event.Count{{Cause: event.CauseNetfilter, Count: 1234567}}, Delivered: 1234567, Handshakes: 1234567,
				Seen: []event.Seen{{Syn: 1234567}},
				Ledger: []event.LedgerRow{{Counter: "ListenDrops", Kernel: 1234567,
					Synspy: 1234568}}})
		},
		"listeners": func(w *bytes.Buffer, o Options) error {
			return writeListings(w, []event.Listing{listing}, o)
		},
		"counters": func(w *bytes.Buffer, o Options) error {
			return CountersTable(w, []event.Counters{counters}, o)
		},
		"counters watch": func(w *bytes.Buffer, o Options) error {
			return NewCountersWatch(w, o).Interval([]event.Counters{counters})
		},
		"canary": func(w *bytes.Buffer, o Options) error {
			c := NewCanary(w, o, []string{long})
			if err := c.Probe(event.Canary{Target: long,
				Outcome: event.CanaryConnected}); err != nil {
				return err
			}
			return c.Summaries([]event.CanarySummary{{Target: long, Sent: 1234567}})
		},
		"diagnosis": func(w *bytes.Buffer, o Options) error {
			d := event.Diagnosis{Counts: []event.Count{{Cause: event.CauseNetfilter,
				Count: 1234567}},
				Findings: []event.Finding{{ID: event.FindingHealthy,
					Evidence: []event.Evidence{
						{What: "packets", Value: 1234567}}}},
				Clients: []event.ClientCount{{Addr: "10.0.0.1", Drops: 1234567}}}
			return Diagnosis(w, d, o)
		},
	}
	named := []string{"stream", "listeners", "counters", "counters watch", "canary"}
	separated := regexp.MustCompile(`\d,\d`)
	for name, write := range tables {
		for _, format := range []Format{FormatTable, FormatWide} {
			var plain, people bytes.Buffer
			if err := write(&plain, Options{Format: format, Plain: true}); err != nil {
				t.Fatal(err)
			}
			if err := write(&people, Options{Format: format}); err != nil {
				t.Fatal(err)
			}
			if text := plain.String(); strings.Contains(text, "…") &&
				name != "summary" || separated.MatchString(text) {
				t.Errorf("%s: shortened, or not plain:\n%s", name, text)
			}
			for _, n := range named {
				if n == name && !strings.Contains(plain.String(), long) {
					t.Errorf("%s: the name is cut:\n%s", name, plain.String())
				}
			}
			if name == "summary" && !separated.MatchString(people.String()) {
				t.Errorf("for people the numbers of the %s are not easy to read:\n%s", name, people.String())
			}
		}
	}
}
