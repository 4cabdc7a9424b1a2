// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
)

const patience = time.Minute // only runs out on a failure

// listen returns the address of a listener that accepts, or of one that is closed.
func listen(t *testing.T, address string, closed bool) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	if closed {
		l.Close()
		return to
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return to
}

func TestProbe(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		r := Probe(t.Context(), listen(t, address, false), patience)
		if r.Outcome != event.CanaryConnected || r.LatencyMs == nil || *r.LatencyMs <= 0 ||
			r.RTTMs == nil ||
			*r.RTTMs > *r.LatencyMs || r.WaitedMs != nil || r.Retransmits == nil ||
			*r.Retransmits != 0 || r.Error != "" {
			t.Errorf("%s: %+v", address, r)
		}
		if r.Client == nil || r.Client.Port == 0 || r.Client.Addr != r.Server.Addr {
			t.Errorf("%s: from %+v", address, r.Client)
		}
		r = Probe(t.Context(), listen(t, address, true), patience)
		if r.Outcome != event.CanaryRefused || r.Answer != event.CanaryAnswerRST ||
			r.LatencyMs == nil || r.RTTMs != nil ||
			r.Retransmits == nil || *r.Retransmits != 0 ||
			r.Note != event.CanaryRefused.Meaning() {
			t.Errorf("%s, closed: %+v", address, r)
		}
	}
}

// TestRun also leaves nothing open: a socket of each probe would show.
func TestRun(t *testing.T) {
	up, down := listen(t, "127.0.0.1:0", false), listen(t, "127.0.0.1:0", true)
	var targets []*Target
	for _, name := range []string{up.String(), down.String()} {
		target, err := ParseTarget(name)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target)
	}
	const count = 100
	seqs := make(map[string][]uint64)
	before := sockets(t)
	summaries,
		err := Run(t.Context(), targets,
		Config{Network: "ip", Interval: MinInterval, Timeout: patience, Count: count},
		func(r event.Canary) error {
			seqs[r.Target] = append(seqs[r.Target], r.Seq)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	// What was accepted is closed by the listener's goroutine a moment later.
	for deadline := time.Now().Add(patience); sockets(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors open, %d before", sockets(t), before)
		}
	}
	for i, want := range []event.CanaryOutcome{event.CanaryConnected, event.CanaryRefused} {
		s := summaries[i]
		if s.Sent+s.Skipped != count || s.Outcomes[want] != s.Sent || s.Retransmits != 0 ||
			s.DurationMs < 900 {
			t.Errorf("%+v", s)
		}
		got := seqs[s.Target]
		slices.Sort(got)
		if uint64(len(got)) != s.Sent || got[0] != 1 || got[len(got)-1] != count {
			t.Errorf("records of probes %v", got)
		}
	}
	if n := histogramTotal(summaries[0]); n != summaries[0].Sent {
		t.Errorf("%d in the histogram, %d sent", n, summaries[0].Sent)
	}
}

func histogramTotal(s event.CanarySummary) (n uint64) {
	for _, b := range s.Histogram {
		n += b.Count
	}
	return n
}

func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestRunEnds with its context, and with its reader.
func TestRunEnds(t *testing.T) {
	target, err := ParseTarget(listen(t, "127.0.0.1:0", false).String())
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Network: "ip", Interval: MinInterval, Timeout: patience}
	ctx, cancel := context.WithCancel(t.Context())
	summaries, err := Run(ctx, []*Target{target}, config, func(r event.Canary) error {
		if r.Seq == 3 {
			cancel()
		}
		return nil
	})
	if err != nil || summaries[0].Sent < 3 {
		t.Errorf("%v, %+v", err, summaries)
	}
	gone := errors.New("nobody reads")
	if _, err := Run(t.Context(), []*Target{target}, config, func(event.Canary) error {
		return gone
	}); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestUnresolved(t *testing.T) {
	target, err := ParseTarget("synspy.invalid:80") // RFC 6761: never a name
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	summaries,
		err := Run(ctx, []*Target{target},
		Config{Network: "ip", Interval: MinInterval, Timeout: time.Second, Count: 1},
		func(r event.Canary) error {
			if r.Outcome != event.CanaryUnresolved || r.Error == "" ||
				r.Server != nil || r.Seq != 1 {
				t.Errorf("%+v", r)
			}
			return nil
		})
	if err != nil || summaries[0].Outcomes[event.CanaryUnresolved] != 1 {
		t.Errorf("%v, %+v", err, summaries)
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1:80":        "10.0.0.1:80",
		"[fd00::1]:443":      "[fd00::1]:443",
		"[::ffff:1.2.3.4]:1": "1.2.3.4:1",
		"127.0.0.1:http":     "127.0.0.1:80",
		"[fe80::1%lo]:80":    "[fe80::1%lo]:80",
		"":                   "",
		"host":               "",
		":80":                "",
		"host:0":             "",
		"host:65536":         "",
		"host:nosuchservice": "",
		"fd00::1:80":         "",
		"1234:80":            "",
	} {
		target, err := ParseTarget(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q is a target", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, err := target.Resolve(t.Context(), "ip"); err != nil ||
			got.String() != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
}

// TestNote: what a latency means follows from the kernel's account, not from its
// length.
func TestNote(t *testing.T) {
	of := func(latency, rtt float64, retransmits uint32) string {
		r := event.Canary{Outcome: event.CanaryConnected, LatencyMs: &latency,
			Retransmits: &retransmits}
		if rtt > 0 {
			r.RTTMs = &rtt
		}
		return note(r)
	}
	for _, test := range []struct {
		latency, rtt float64
		retransmits  uint32
		want         string
	}{
		{0.2, 0.1, 0, ""},
		{1003, 0.1, 1, "the first SYN, or its answer, was dropped or lost"},
		{3003, 0.1, 2, "the first 2 SYNs, or their answers, were dropped or lost"},
		{3003, 0, 2, "the first 2 SYNs, or their answers, were dropped or lost"},
		{1003, 1002, 0,
			"slow network: no SYN was sent again, the round trip took that long"},
		{1500, 1499, 1,
			"slow network, not loss: the answer took longer than the retransmission"},
		{1003, 0.1, 0,
			"no SYN was sent again and the round trip was short: this machine was late to notice"},
	} {
		if got := of(test.latency, test.rtt, test.retransmits); got != test.want {
			t.Errorf("%v: %q", test, got)
		}
	}
}

func TestDistribution(t *testing.T) {
	var d distribution
	if d.summary() != nil {
		t.Error("a distribution of nothing")
	}
	for i := range 1000 {
		d.add(float64(i+1) / 10)
	}
	s := d.summary()
	for _, p := range []struct{ got, want float64 }{{s.P50, 50}, {s.P90, 90}, {s.P99, 99}} {
		if p.got < p.want*0.98 || p.got > p.want*1.02 {
			t.Errorf("%v, want %v", p.got, p.want)
		}
	}
	if s.Min != 0.1 || s.Max != 100 {
		t.Errorf("%+v", s)
	}
	one := distribution{}
	one.add(3)
	if s := one.summary(); *s != (event.CanaryLatency{Min: 3, P50: 3, P90: 3, P99: 3, Max: 3}) {
		t.Errorf("%+v", s)
	}
}

func TestStep(t *testing.T) {
	for _, test := range []struct{ ms, from, to float64 }{
		{0.001, 0.01, 0.02}, {0.01, 0.01, 0.02}, {0.05, 0.05, 0.1}, {0.099, 0.05, 0.1},
		{0.1, 0.1, 0.2}, {1, 1, 2}, {1.999, 1, 2},
		{2, 2, 5}, {9.99, 5, 10}, {10, 10, 20}, {1000, 1000, 2000}, {1003.2, 1000, 2000},
		{3003, 2000, 5000}, {600000, 500000, 1000000},
	} {
		step := stepOf(test.ms)
		if from, to := stepFrom(step), stepFrom(step+1); from != test.from ||
			to != test.to {
			t.Errorf("%v is in %v to %v, want %v to %v", test.ms, from, to, test.from,
				test.to)
		}
	}
}

// TestVerdictOfReset: who was connected for a moment is not told that he never was.
func TestVerdictOfReset(t *testing.T) {
	for outcomes, want := range map[[3]uint64]string{ // connected, reset, timeout
		{0, 3, 0}: "no connection lasted, reset: an RST came after the handshake",
		{0, 0, 3}: "never connected, timeout: no answer",
		{0, 1, 2}: "no connection lasted, mostly timeout: no answer",
		{2, 1, 0}: "1 of 3 failed, reset: an RST came after the handshake",
	} {
		got := verdict(event.CanarySummary{Sent: outcomes[0] + outcomes[1] + outcomes[2],
			Latency: &event.CanaryLatency{}, Outcomes: map[event.CanaryOutcome]uint64{
				event.CanaryConnected: outcomes[0], event.CanaryReset: outcomes[1], event.CanaryTimeout: outcomes[2]}})
		if !strings.HasPrefix(got, want) ||
			strings.Contains(got, "connected, reset: connected") {
			t.Errorf("%v: %q, want %q", outcomes, got, want)
		}
	}
}
