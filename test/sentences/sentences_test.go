// SPDX-License-Identifier: Apache-2.0

package sentences

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestSentencesFitNumbers renders what very many windows lead to, most of them such as nobody would
// think of.
func TestSentencesFitNumbers(t *testing.T) {
	for seed := range uint64(400) {
		e := randomEvidence(rand.New(rand.NewPCG(seed, 11)))
		d := diagnose.Diagnose(e)
		if wrong := Contradictions(d); len(wrong) > 0 {
			evidence, _ := json.Marshal(e)
			t.Fatalf("seed %d: %s\n%s\nof %s", seed, strings.Join(wrong, "\n"),
				Report(d), evidence)
		}
	}
}

// TestGoldensFitNumbers: the diagnoses that are kept as examples do.
func TestGoldensFitNumbers(t *testing.T) {
	files, err := filepath.Glob("../../internal/diagnose/testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d goldens: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d event.Diagnosis
		if json.Unmarshal(text, &d) != nil || d.Type != "diagnosis" {
			continue
		}
		if wrong := Contradictions(d); len(wrong) > 0 {
			t.Errorf("%s: %s", file, strings.Join(wrong, "\n"))
		}
	}
}

// TestContradictionsAreSeen: the check finds what it looks for.
func TestContradictionsAreSeen(t *testing.T) {
	balanced := true
	for _, d := range []event.Diagnosis{
		{Verdict: "The listen path is not the problem: 20 SYNs arrived and none was dropped.",
			Counts: []event.Count{{Cause: event.CauseAcceptQueueFull,
				Stage: event.StageSyn, Action: event.ActionDropped, Count: 3}}},
		{Verdict: "30 handshake packets died: of it.",
			Counts: []event.Count{{Cause: event.CauseAcceptQueueFull,
				Stage: event.StageSyn, Action: event.ActionDropped, Count: 3}}},
		{Verdict: "1 SYNs arrived."},
		{Verdict: "x", Handshakes: &event.Handshakes{Begun: 3, Finished: 1}},
		{Verdict: "x",
			Listeners: []event.ListenerView{{WhatIf: &event.WhatIf{Says: "no limit helps", Rows: []event.WhatIfRow{
				{Limit: 8, Dropped: 3, Present: true, Workers: 1},
				{Limit: 16, Workers: 1}}}}}},
		{Verdict: "x",
			Findings: []event.Finding{{
				Knobs: []event.Knob{{Name: "listen() backlog", Now: "4096", Try: "128"}}}}},
		{Verdict: "x; there are 2 more causes.", Balanced: &balanced},
	} {
		if len(Contradictions(d)) == 0 {
			t.Errorf("nothing wrong with %q", d.Verdict)
		}
	}
}

// randomEvidence is a window in which anything may have happened; what is counted in it fits
// together.
func randomEvidence(r *rand.Rand) *evidence.Evidence {
	few := func(most uint64) uint64 { // often nothing, or one
		return [...]uint64{0, 0, 1, 2, 30, r.Uint64N(most + 1)}[r.IntN(6)]
	}
	balanced := true
	e := &evidence.Evidence{WindowMs: 10_000, Balanced: &balanced}
	if r.IntN(3) == 0 {
		e.Ports = []uint16{443}
	}
	for range r.IntN(3) {
		e.Listeners = append(e.Listeners, randomListener(r, few))
	}
	for i := range e.Listeners {
		for _, c := range e.Listeners[i].Counts {
			e.Counts = event.AddCount(e.Counts, c)
		}
	}
	for range r.IntN(3) {
		cause := []event.Cause{event.CauseNoListener, event.CauseNetfilter,
			event.CauseRPFilter, event.CauseTimeWait}[r.IntN(4)]
		action := event.ActionDropped
		if cause == event.CauseNoListener {
			action = event.ActionReset
		}
		if n := few(300); n > 0 {
			e.Counts = event.AddCount(e.Counts,
				event.Count{Cause: cause, Stage: event.StageIngress, Action: action,
					Count: n})
			e.Ingress = append(e.Ingress,
				evidence.Death{Cause: cause, Action: action, NetNS: 4026531840,
					Count: n,
					Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"),
						Port: uint16(443 + r.IntN(3))}})
		}
	}
	for _, counter := range []string{"ListenDrops", "ListenOverflows", "EmbryonicRsts",
		"TcpInErrs"}[:r.IntN(5)] {
		row := event.LedgerRow{NetNS: 4026531840, Counter: counter, Synspy: few(50),
			Shared: counter == "TcpInErrs", Gone: r.IntN(5) == 0}
		if r.IntN(3) == 0 {
			row.Unattributed = few(9)
		}
		row.Kernel = row.Synspy + row.Unattributed
		e.Ledger = append(e.Ledger, row)
	}
	clients := few(200)
	for i := range min(clients, 20) {
		e.Clients = append(e.Clients, event.ClientCount{Addr: fmt.Sprintf("10.0.1.%d", i),
			Drops: 1 + few(20)})
	}
	if r.IntN(3) > 0 {
		e.ClientsSeen = &clients
	}
	return e
}

// randomListener lets SYNs come to a queue of some limit, accepts some of them, and has handshakes
// end in other ways.
func randomListener(r *rand.Rand, few func(uint64) uint64) evidence.Listener {
	const step = 100
	limit := []uint32{0, 1, 8, 128}[r.IntN(4)]
	l := evidence.Listener{
		ID: event.Listener{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443,
			NetNS: 4026531840, Cookie: 1 + r.Uint64N(99),
			AcceptQueue: &event.Queue{Limit: limit},
			SynQueue:    &event.SynQueue{Limit: limit}},
		Processes: []event.Process{{PID: 812, Comm: "server", Role: event.RoleAcceptor}},
		StepMs:    step, RetriesCounted: r.IntN(2) == 0,
	}
	rate, pace, stall := few(40), few(40), r.IntN(100)
	var syns, accepts, finished, drops, length, open uint64
	for i := range 100 {
		came, can := rate*r.Uint64N(3)/2, pace
		if i >= stall && i < stall+20 {
			can = 0
		}
		if r.IntN(40) == 0 {
			came += few(200)
		}
		p := event.TimelinePoint{OffsetMs: uint32(i * step), Arrivals: &came,
			Accepts: new(uint64), Drops: new(uint64), Retries: new(uint64),
			AcceptQueue: &event.Queue{Limit: limit}, SynQueue: &event.SynQueue{
				Limit: limit}}
		for range came {
			if length > uint64(limit) {
				*p.Drops++
				continue
			}
			length++
			finished++
		}
		p.AcceptQueue.Len = uint32(length)
		*p.Accepts = min(length, can)
		length -= *p.Accepts
		syns, accepts, drops = syns+came, accepts+*p.Accepts, drops+*p.Drops
		l.Timeline = append(l.Timeline, p)
	}
	count := func(c event.Cause, s event.Stage, a event.Action, n uint64) {
		if n > 0 {
			l.Counts = event.AddCount(l.Counts,
				event.Count{Cause: c, Stage: s, Action: a, Count: n})
		}
	}
	count(event.CauseAcceptQueueFull, event.StageSyn, event.ActionDropped, drops)
	if r.IntN(2) == 0 {
		l.BadAcks.ByClient, l.BadAcks.ByServer = few(50), few(5)
		l.BadAcks.ClientAgain = min(l.BadAcks.ByClient, few(9))
		count(event.CauseBadHandshakeAck, event.StageAck, event.ActionDropped,
			l.BadAcks.ByClient+few(40))
		count(event.CauseBadHandshakeAck, event.StageAck, event.ActionReset,
			l.BadAcks.ByServer+few(40))
		syns += l.BadAcks.ByClient + l.BadAcks.ByServer
	}
	if r.IntN(3) == 0 {
		expired := few(60)
		count(event.CauseHandshakeExpired, event.StageTimer, event.ActionDropped, expired)
		open = few(40)
		syns += expired + open
		l.ID.SynQueue.Len = uint32(open)
		again := 3 * (expired + open)
		l.SynAcksAgain = &again
	}
	if r.IntN(3) == 0 {
		n := few(40)
		count(event.CauseDeferAccept, event.StageAck, event.ActionIgnored, n)
		if r.IntN(2) == 0 {
			l.Deferred = &evidence.Deferred{Watched: n, Held: min(n, few(40)),
				LongestMs: 4000}
		}
	}
	if r.IntN(4) == 0 {
		count(event.CauseCookieInvalid, event.StageAck, event.ActionReset, few(90))
	}
	if r.IntN(4) == 0 {
		n := few(300)
		l.Cookies = &n
		syns += n
	}
	if r.IntN(5) == 0 {
		syns += few(20) // of which nobody knows what became
	}
	l.ID.AcceptQueue.Len = uint32(length)
	l.Syns, l.Accepts, l.HalfOpenBefore = &syns, &accepts, new(uint64)
	if r.IntN(4) > 0 {
		l.Finished = &finished
	}
	if r.IntN(2) == 0 {
		asked, somaxconn, off := limit+uint32(few(4096)), limit+uint32(few(4096)),
			uint32(r.IntN(2))
		if asked > limit {
			somaxconn = limit
		}
		l.AskedBacklog, l.Sysctls.Somaxconn, l.Sysctls.Syncookies = &asked, &somaxconn, &off
	}
	if r.IntN(2) == 0 {
		late := few(9)
		l.Late = &late
	}
	return l
}
