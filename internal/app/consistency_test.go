package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// What a report says is made from the numbers that it stands beside. These tests read both.

// TestSentencesFitNumbers renders what very many windows lead to, most of them such as nobody would think of.
func TestSentencesFitNumbers(t *testing.T) {
	for seed := range uint64(400) {
		e := randomEvidence(rand.New(rand.NewPCG(seed, 11)))
		d := diagnose.Diagnose(e)
		if wrong := contradictions(t, d); len(wrong) > 0 {
			evidence, _ := json.Marshal(e)
			t.Fatalf("seed %d: %s\n%s\nof %s", seed, strings.Join(wrong, "\n"), reportOf(t, d), evidence)
		}
	}
}

// TestGoldensFitNumbers: the diagnoses that are kept as examples do.
func TestGoldensFitNumbers(t *testing.T) {
	files, err := filepath.Glob("../diagnose/testdata/*.json")
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
		if wrong := contradictions(t, d); len(wrong) > 0 {
			t.Errorf("%s: %s", file, strings.Join(wrong, "\n"))
		}
	}
}

// TestContradictionsAreSeen: the check finds what it looks for.
func TestContradictionsAreSeen(t *testing.T) {
	balanced := true
	for _, d := range []event.Diagnosis{
		{Verdict: "The listen path is not the problem: 20 SYNs arrived and none was dropped.",
			Counts: []event.Count{{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: 3}}},
		{Verdict: "30 handshake packets died: of it.", Counts: []event.Count{{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: 3}}},
		{Verdict: "1 SYNs arrived."},
		{Verdict: "x", Handshakes: &event.Handshakes{Begun: 3, Finished: 1}},
		{Verdict: "x", Listeners: []event.ListenerView{{WhatIf: &event.WhatIf{Says: "no limit helps", Rows: []event.WhatIfRow{
			{Limit: 8, Dropped: 3, Present: true, Workers: 1}, {Limit: 16, Workers: 1}}}}}},
		{Verdict: "x", Findings: []event.Finding{{Knobs: []event.Knob{{Name: "listen() backlog", Now: "4096", Try: "128"}}}}},
		{Verdict: "x; there are 2 more causes.", Balanced: &balanced},
	} {
		if len(contradictions(t, d)) == 0 {
			t.Errorf("nothing wrong with %q", d.Verdict)
		}
	}
}

func reportOf(t *testing.T, d event.Diagnosis) string {
	t.Helper()
	var text bytes.Buffer
	if err := render.Diagnosis(&text, d, render.Options{Width: 100}); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

var (
	oneOfMany = regexp.MustCompile(`(?:^|[^\d,.:-])1 (?:more )?(?:SYNs|SYN-ACKs|ACKs|packets|handshakes|listeners|clients|connections|causes|namespaces|counters|addresses|drops|ports)\b`)
	manyOfOne = regexp.MustCompile(`(?:^|[^\d,.:-])(?:0|[2-9]|\d[\d,]*\d) (?:more )?(?:SYN|packet|handshake|listener|client|connection|counter)(?:[.;,)]|$| (?:arrived|reached|died|was|were|on|of)\b)`)
	died      = regexp.MustCompile(`^(?:Of )?([\d,]+) handshake packets? `)
	ofThose   = regexp.MustCompile(`that died, ([\d,]+) `)
	more      = regexp.MustCompile(`there are ([\d,]+) more causes`)
	watched   = regexp.MustCompile(`([\d,]+) packets? dropped or reset`)
	others    = regexp.MustCompile(`(?m)^([\d,]+) more clients?$`)
	unmoved   = regexp.MustCompile(`none of its ([\d,]+) counters? moved`)
	roomy     = regexp.MustCompile(`a limit of (\d+) .*would have dropped 0 of ([\d,]+) handshakes?`)
	replayed  = regexp.MustCompile(`the replay of what was drops ([\d,]+)`)
)

func numberIn(r *regexp.Regexp, text string, group int) (uint64, bool) {
	m := r.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.ReplaceAll(m[group], ",", ""), 10, 64)
	return n, err == nil
}

// contradictions lists the sentences of a report that its numbers do not bear.
func contradictions(t *testing.T, d event.Diagnosis) (wrong []string) {
	t.Helper()
	report := reportOf(t, d)
	flat := strings.Join(strings.Fields(report), " ")
	say := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	var dropped, ignored uint64
	for _, c := range d.Counts {
		if c.Action == event.ActionIgnored {
			ignored += c.Count
		} else {
			dropped += c.Count
		}
	}
	causes := uint64(0)
	for _, f := range d.Findings {
		if f.Severity == event.SeverityCause {
			causes++
		}
	}
	for _, r := range []*regexp.Regexp{oneOfMany, manyOfOne} {
		if m := r.FindString(flat); m != "" {
			say("number and noun: %q", m)
		}
	}
	if n, ok := numberIn(watched, flat, 1); ok && n != dropped {
		say("%d packets are said to be dropped or reset, and the counts have %d", n, dropped)
	}
	n, ok := numberIn(died, d.Verdict, 1)
	if ok && n > dropped {
		say("the verdict has %d dead, and the counts %d", n, dropped)
	}
	if of, some := numberIn(ofThose, d.Verdict, 1); some && (of >= n || !ok) {
		say("the verdict has %d of %d", of, n)
	}
	if (strings.Contains(d.Verdict, "none was dropped") || strings.Contains(d.Verdict, "othing was seen to be dropped")) && dropped > 0 {
		say("nothing dropped, and %d were", dropped)
	}
	if strings.Contains(d.Verdict, "not the problem") {
		if h := d.Handshakes; causes > 0 || h == nil || h.Unaccounted > 0 || h.Finished == 0 {
			say("not the problem, with %d causes and the handshakes %+v", causes, h)
		}
	}
	if k, ok := numberIn(more, d.Verdict, 1); ok && k != causes-1 || strings.Contains(d.Verdict, "there is another cause") && causes != 2 {
		say("the verdict has other causes, and the report %d", causes)
	}
	for _, f := range d.Findings {
		for _, k := range f.Knobs { // of queues: what is to be raised is to be more than it is
			now, err1 := strconv.ParseUint(k.Now, 10, 64)
			try, err2 := strconv.ParseUint(k.Try, 10, 64)
			if err1 == nil && err2 == nil && try <= now && (strings.Contains(k.Name, "backlog") || strings.Contains(k.Name, "somaxconn")) {
				say("%s: %s is to go from %d to %d", f.ID, k.Name, now, try)
			}
		}
	}
	if h := d.Handshakes; h != nil {
		if sum := h.Finished + h.Ended + h.Died + h.Cookies + h.Held + h.Unanswered + h.Open + h.Unaccounted; sum != h.Begun {
			say("%d handshakes began, and %d became something: %+v", h.Begun, sum, h)
		}
	}
	wrong = append(wrong, ledgerContradictions(d, flat)...)
	if k, ok := numberIn(others, report, 1); ok && d.ClientsSeen != nil && k+10 != *d.ClientsSeen {
		say("%d more clients than 10, of %d", k, *d.ClientsSeen)
	}
	for i := range d.Listeners {
		if w := d.Listeners[i].WhatIf; w != nil {
			wrong = append(wrong, replayContradictions(w, d.Findings)...)
		}
	}
	return wrong
}

func ledgerContradictions(d event.Diagnosis, flat string) (wrong []string) {
	var moved, unattributed, rows uint64
	for _, r := range d.Ledger {
		if !r.Shared {
			rows++
			unattributed += r.Unattributed
			if !r.Gone {
				moved += r.Kernel
			}
		}
	}
	if n, ok := numberIn(unmoved, flat, 1); ok && (moved > 0 || n > rows) {
		wrong = append(wrong, fmt.Sprintf("none of %d counters moved, and %d rows moved by %d", n, rows, moved))
	}
	if strings.Contains(flat, "moved by what synspy counted") && unattributed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d unattributed under a balanced ledger", unattributed))
	}
	if strings.Contains(flat, "ledger balanced") && d.Balanced != nil && !*d.Balanced {
		wrong = append(wrong, "a ledger that does not balance is called balanced")
	}
	return wrong
}

func replayContradictions(w *event.WhatIf, findings []event.Finding) (wrong []string) {
	present := w.Rows[0]
	enough := func(r event.WhatIfRow) bool { return r.Limit > present.Limit && r.Workers == 1 && r.Dropped == 0 }
	if strings.Contains(w.Says, "no limit helps") || strings.Contains(w.Says, "no limit up to") {
		if slices.ContainsFunc(w.Rows, enough) {
			wrong = append(wrong, fmt.Sprintf("%q, over %+v", w.Says, w.Rows))
		}
	}
	if m := roomy.FindStringSubmatch(w.Says); m != nil {
		n, _ := numberIn(roomy, w.Says, 2)
		if n != w.Arrivals || !slices.ContainsFunc(w.Rows, func(r event.WhatIfRow) bool { return enough(r) && fmt.Sprint(r.Limit) == m[1] }) {
			wrong = append(wrong, fmt.Sprintf("%q, over %+v", w.Says, w.Rows))
		}
	}
	for _, f := range findings {
		for _, fix := range f.Fix {
			if n, ok := numberIn(replayed, fix, 1); ok && n != present.Dropped {
				wrong = append(wrong, fmt.Sprintf("%q, over %+v", fix, present))
			}
		}
	}
	return wrong
}

// randomEvidence is a window in which anything may have happened; what is counted in it fits together.
func randomEvidence(r *rand.Rand) *diagnose.Evidence {
	few := func(most uint64) uint64 { // often nothing, or one
		return [...]uint64{0, 0, 1, 2, 30, r.Uint64N(most + 1)}[r.IntN(6)]
	}
	balanced := true
	e := &diagnose.Evidence{WindowMs: 10_000, Balanced: &balanced}
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
		cause := []event.Cause{event.CauseNoListener, event.CauseNetfilter, event.CauseRPFilter, event.CauseTimeWait}[r.IntN(4)]
		action := event.ActionDropped
		if cause == event.CauseNoListener {
			action = event.ActionReset
		}
		if n := few(300); n > 0 {
			e.Counts = event.AddCount(e.Counts, event.Count{Cause: cause, Stage: event.StageIngress, Action: action, Count: n})
			e.Ingress = append(e.Ingress, diagnose.Death{Cause: cause, Action: action, NetNS: 4026531840, Count: n,
				Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: uint16(443 + r.IntN(3))}})
		}
	}
	for _, counter := range []string{"ListenDrops", "ListenOverflows", "EmbryonicRsts", "TcpInErrs"}[:r.IntN(5)] {
		row := event.LedgerRow{NetNS: 4026531840, Counter: counter, Synspy: few(50), Shared: counter == "TcpInErrs", Gone: r.IntN(5) == 0}
		if r.IntN(3) == 0 {
			row.Unattributed = few(9)
		}
		row.Kernel = row.Synspy + row.Unattributed
		e.Ledger = append(e.Ledger, row)
	}
	clients := few(200)
	for i := range min(clients, 20) {
		e.Clients = append(e.Clients, event.ClientCount{Addr: fmt.Sprintf("10.0.1.%d", i), Drops: 1 + few(20)})
	}
	if r.IntN(3) > 0 {
		e.ClientsSeen = &clients
	}
	return e
}

// randomListener lets SYNs come to a queue of some limit, accepts some of them, and has handshakes end in other ways.
func randomListener(r *rand.Rand, few func(uint64) uint64) diagnose.Listener {
	const step = 100
	limit := []uint32{0, 1, 8, 128}[r.IntN(4)]
	l := diagnose.Listener{
		ID: event.Listener{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443, NetNS: 4026531840, Cookie: 1 + r.Uint64N(99),
			AcceptQueue: &event.Queue{Limit: limit}, SynQueue: &event.SynQueue{Limit: limit}},
		Processes: []event.Process{{PID: 812, Comm: "server", Role: event.RoleAcceptor}}, StepMs: step, RetriesTold: r.IntN(2) == 0,
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
		p := event.TimelinePoint{OffsetMs: uint32(i * step), Arrivals: &came, Accepts: new(uint64), Drops: new(uint64), Retries: new(uint64),
			AcceptQueue: &event.Queue{Limit: limit}, SynQueue: &event.SynQueue{Limit: limit}}
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
			l.Counts = event.AddCount(l.Counts, event.Count{Cause: c, Stage: s, Action: a, Count: n})
		}
	}
	count(event.CauseAcceptQueueFull, event.StageSyn, event.ActionDropped, drops)
	if r.IntN(2) == 0 {
		l.BadAcks.ByClient, l.BadAcks.ByServer = few(50), few(5)
		l.BadAcks.ClientAgain = min(l.BadAcks.ByClient, few(9))
		count(event.CauseBadHandshakeAck, event.StageAck, event.ActionDropped, l.BadAcks.ByClient+few(40))
		count(event.CauseBadHandshakeAck, event.StageAck, event.ActionReset, l.BadAcks.ByServer+few(40))
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
			l.Deferred = &diagnose.Deferred{Watched: n, Held: min(n, few(40)), LongestMs: 4000}
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
		asked, somaxconn, off := uint32(limit)+uint32(few(4096)), uint32(limit)+uint32(few(4096)), uint32(r.IntN(2))
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
