// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

func counter(name string, value, delta uint64) event.CounterValue {
	all := event.Meanings()
	m := all[slices.IndexFunc(all, func(m event.Meaning) bool { return m.Name == name })]
	v := event.CounterValue{Name: name, Value: value, Shared: m.Shared, Meaning: m.Says,
		Hint: m.Hint}
	if delta > 0 {
		rate := float64(delta) / 2
		v.Delta, v.Rate = &delta, &rate
	}
	return v
}

// counted is three namespaces at a time after the start.
func counted(after time.Duration, delta uint64) []event.Counters {
	at := event.Time{Time: start.Add(after)}
	return []event.Counters{
		{Header: event.Head("counters"), Time: at, NetNS: 4026531840, PIDs: []uint32{1, 2},
			Comm: "systemd",
			Counters: []event.CounterValue{
				counter("ListenOverflows", 1241, 3*delta),
				counter("ListenDrops", 1_234_567, 4000*delta),
				counter("TcpOutRsts", 12, delta)}},
		{Header: event.Head("counters"), Time: at, NetNS: 4026532245, Name: "web",
			PIDs: []uint32{812}, Comm: "nginx",
			Container: &event.Container{ID: strings.Repeat("0123456789abcdef", 4),
				Runtime: "docker"},
			Counters: []event.CounterValue{counter("TCPFastOpenListenOverflow", 7,
				0)}},
		{Header: event.Head("counters"), Time: at, NetNS: 4026532999,
			Name:     "ev\x1b[2J\nil-and-much-longer-than-a-column",
			Counters: []event.CounterValue{counter("ListenDrops", 0, 0)}},
	}
}

func TestCountersGolden(t *testing.T) {
	for name, opts := range map[string]Options{
		"counters": {}, "counters-wide": {Format: FormatWide},
		"counters-json":  {Format: FormatJSON},
		"counters-color": {Color: true},
	} {
		var buf bytes.Buffer
		if err := CountersTable(&buf, counted(0, 0), opts); err != nil {
			t.Fatal(err)
		}
		golden(t, name, buf.Bytes())
	}
	for name, opts := range map[string]Options{
		"counters-watch": {Width: 80}, "counters-watch-wide": {Format: FormatWide},
		"counters-watch-json": {Format: FormatJSON},
	} {
		var buf bytes.Buffer
		opts.Time = ClockUTC
		w := NewCountersWatch(&buf, opts)
		for i := range 2 {
			if err := w.Interval(counted(time.Duration(i)*time.Second, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Interval(nil); err != nil {
			t.Fatal(err)
		}
		golden(t, name, buf.Bytes())
	}
}

// TestCountersWidth: the tables fit 80 columns unless numbers are enormous.
func TestCountersWidth(t *testing.T) {
	var buf bytes.Buffer
	opts := Options{Width: 80, Time: ClockUTC}
	records := counted(0, 1)
	for _, m := range event.Meanings() {
		records[0].Counters = append(records[0].Counters,
			counter(m.Name, 999_999_999, 999_999))
	}
	if err := CountersTable(&buf, records, opts); err != nil {
		t.Fatal(err)
	}
	if err := NewCountersWatch(&buf, opts).Interval(records); err != nil {
		t.Fatal(err)
	}
	safe(t, buf.Bytes())
	for line := range strings.Lines(buf.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}

// TestHostileCounters: names of namespaces and processes come from outside.
func TestHostileCounters(t *testing.T) {
	for _, s := range hostile {
		records := counted(0, 1)[:1]
		records[0].Name, records[0].Comm, records[0].Counters[0].Name = s, s, s
		for _, format := range []Format{FormatTable, FormatWide, FormatJSON} {
			var buf bytes.Buffer
			opts := Options{Format: format}
			if err := CountersTable(&buf, records, opts); err != nil {
				t.Fatal(err)
			}
			if err := NewCountersWatch(&buf, opts).Interval(records); err != nil {
				t.Fatal(err)
			}
			safe(t, buf.Bytes())
		}
	}
}
