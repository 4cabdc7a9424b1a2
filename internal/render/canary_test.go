// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
)

func canaryRecords() ([]event.Canary, []event.CanarySummary) {
	ms := func(v float64) *float64 { return &v }
	n := func(v uint32) *uint32 { return &v }
	at := event.Time{Time: time.Date(2026, 11, 22, 4, 55, 1, 0, time.UTC)}
	server := &event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443}
	client := &event.Endpoint{Addr: netip.MustParseAddr("10.0.0.7"), Port: 51234}
	return []event.Canary{
			{Header: event.Head("canary"), Time: at, Target: "web:443", Seq: 1,
				Server: server, Client: client,
				Outcome: event.CanaryConnected, LatencyMs: ms(0.213),
				RTTMs: ms(0.187), Retransmits: n(0)},
			{Header: event.Head("canary"), Time: at, Target: "web:443", Seq: 2,
				Server: server, Client: client,
				Outcome: event.CanaryConnected, LatencyMs: ms(3003.1),
				RTTMs: ms(0.2), Retransmits: n(2),
				Note: "the first 2 SYNs"},
			{Header: event.Head("canary"), Time: at, Target: "web:443", Seq: 3,
				Server:  server,
				Outcome: event.CanaryTimeout, WaitedMs: ms(10000),
				Retransmits: n(5), Note: "no answer to 6 SYNs"},
			{Header: event.Head("canary"), Time: at, Target: "\x1b[2J.evil:1", Seq: 1,
				Outcome: event.CanaryUnresolved, Error: "no such \x1b]0;host",
				Note: "no such \x1b]0;host"},
		}, []event.CanarySummary{{Header: event.Head("canary_summary"), Target: "web:443",
			Server: server, DurationMs: 12000, Sent: 3,
			Outcomes: map[event.CanaryOutcome]uint64{event.CanaryTimeout: 1,
				event.CanaryConnected: 2},
			Retransmitted: 2, Retransmits: 7, Latency: &event.CanaryLatency{Min: 0.213,
				P50: 0.213, P90: 3003.1, P99: 3003.1, Max: 3003.1},
			Histogram: []event.CanaryBucket{{FromMs: 0.2, ToMs: 0.5, Count: 1},
				{FromMs: 0.5, ToMs: 1},
				{FromMs: 2000, ToMs: 5000, Count: 1,
					Retransmitted: 1}}, Verdict: "1 of 3 did not connect"}}
}

func canaryText(t *testing.T, opts Options) string {
	t.Helper()
	var out bytes.Buffer
	c := NewCanary(&out, opts, []string{"web:443", "\x1b[2J.evil:1"})
	records, summaries := canaryRecords()
	for _, r := range records {
		if err := c.Probe(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Summaries(summaries); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCanaryTable(t *testing.T) {
	want := `TIME     TARGET          SEQ OUTCOME     TIME TAKEN       RTT AGAIN
04:55:01 web:443           1 connected     0.213 ms  0.187 ms     0
04:55:01 web:443           2 connected      3.003 s  0.200 ms     2 the first 2 SYNs
04:55:01 web:443           3 timeout      >10.000 s         -     5 no answer to 6 SYNs
04:55:01 \x1b[2J.evil:1    1 unresolved           -         -     - no such \x1b]0;host

web:443 (10.0.0.1:443): 3 probes in 12 s
  2 connected, 1 timeout
  7 SYNs sent again, in 2 probes
  connect     min 0.213 ms, p50 0.213 ms, p90 3.003 s, p99 3.003 s, max 3.003 s
  1 of 3 did not connect
  CONNECT TOOK     COUNT
  200 µs - 500 µs      1  ████████████████████████████████████████
  500 µs - 1 ms        0
  2 s - 5 s            1  ████████████████████████████████████████  1 with a SYN sent again
`
	if diff := cmp.Diff(want, canaryText(t, Options{Time: ClockUTC})); diff != "" {
		t.Error(diff)
	}
	if got := canaryText(t, Options{Time: ClockUTC, Format: FormatWide}); !strings.Contains(got,
		"10.0.0.7:51234") {
		t.Errorf("no client:\n%s", got)
	}
	if got := canaryText(t, Options{Color: true}); !strings.Contains(got, styleRed+"timeout") ||
		strings.Contains(got, "\x1b]") {
		t.Errorf("got:\n%q", got)
	}
}

func TestCanaryJSON(t *testing.T) {
	lines := strings.Split(
		strings.TrimSpace(canaryText(t, Options{Format: FormatJSON, Color: true})), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines", len(lines))
	}
	want := `{"v":1,"type":"canary","time":"2026-11-22T04:55:01.000000000Z","target":"web:443","seq":1,` +
		`"server":{"addr":"10.0.0.1","port":443},"client":{"addr":"10.0.0.7","port":51234},"outcome":"connected",` +
		`"latency_ms":0.213,"rtt_ms":0.187,"retransmits":0}`
	if diff := cmp.Diff(want, lines[0]); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(lines[4], `{"v":1,"type":"canary_summary","target":"web:443"`) {
		t.Error(lines[4])
	}
}
