// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

func ref[T any](v T) *T { return &v }

// incident is a diagnosis of an accept loop that stands still for 4.9 s, now and
// then, while its cgroup is throttled.
func incident() event.Diagnosis {
	drop := typical()
	listener, processes := drop.Listener, drop.Processes
	timeline := event.Timeline{Listener: listener, StepMs: 50}
	var syns, accepts uint64
	queue, retrying := uint32(0), uint64(0)
	for i := range uint32(600) {
		arrivals, accepted, dropped := uint64(7)+uint64(3*math.Sin(float64(i)/9)),
			uint64(8), uint64(0)
		phase := i % 240
		still := phase >= 100 && phase < 198
		if still {
			accepted = 0
		} else if queue > 0 {
			accepted = 22
		}
		if room := uint64(129 - queue); still && arrivals > room {
			dropped = arrivals - room
			retrying++
		}
		inflow := arrivals - dropped
		accepted = min(accepted, uint64(queue)+inflow)
		queue = queue + uint32(inflow) - uint32(accepted)
		syns, accepts = syns+arrivals, accepts+accepted
		timeline.Points = append(timeline.Points, event.TimelinePoint{OffsetMs: 50 * i,
			AcceptQueue: &event.Queue{Len: queue, Limit: 128},
			SynQueue:    &event.SynQueue{Len: i % 7, Limit: 128},
			Arrivals:    ref(arrivals), Retries: ref(dropped / 2), Accepts: ref(accepted),
			Drops:     ref(dropped),
			Throttled: phase >= 150 && phase < 170})
	}
	counts := []event.Count{
		{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: 1189},
		{Cause: event.CauseAcceptQueueFull, Stage: event.StageAck,
			Action: event.ActionDropped, Count: 45},
		{Cause: event.CauseDeferAccept, Stage: event.StageAck, Action: event.ActionIgnored,
			Count: 3},
	}
	limits := []float64{0.1, 1, 10, 100, 1000, 5000}
	histogram := func(counts ...uint64) []event.Bucket {
		var buckets []event.Bucket
		for i, n := range counts {
			b := event.Bucket{Count: n}
			if i < len(limits) {
				b.ToMs = &limits[i]
			}
			buckets = append(buckets, b)
		}
		return buckets
	}
	return event.Diagnosis{
		Header: event.Head("diagnosis"), Time: event.Time{Time: start}, WindowS: 30,
		Kernel: "6.12.0",
		Origin: event.Origin{Run: "0123456789abcdef", Host: "web3", BootID: "8c1f",
			Program: event.Program{Version: "1.2",
				Command: "synspy diagnose --port 443"}},
		Verdict: "nginx (pid 812) stood still for 4.9 s in futex() while 129 connections waited: 1,234 handshake packets dropped on 0.0.0.0:443",
		Findings: []event.Finding{
			{ID: event.FindingAcceptLoopBlocked, Severity: event.SeverityCause,
				Title:    "the accept loop of nginx is blocked in futex()",
				Listener: listener, Processes: processes,
				Evidence: []event.Evidence{
					{What: "longest time without an accept while the queue was full", Value: 4900, Unit: "ms"},
					{What: "samples of the accepting threads asleep in futex()",
						Value: 98.4, Unit: "%"},
					{What: "packets dropped meanwhile", Value: uint64(1234),
						Unit: "packets"},
					{What: "function that held the thread",
						Value: "db.(*Pool).Get"},
					{What: "accept queue read as full", Value: true},
				},
				Fix: []string{
					"take the call that blocks off the accepting thread: hand the connection on, set a timeout on it, or make it asynchronous",
					"no backlog is large enough for a loop that stands still",
				},
				Knobs: []event.Knob{{Name: "pool timeout", Try: "250 ms",
					Where: "the application's configuration",
					Why:   "a wait of 4.9 s fills the queue of 128 in 0.9 s"}},
				Owner: "application", Confidence: event.ConfidenceProven},
			{ID: event.FindingCPUThrottled, Severity: event.SeverityContributing,
				Title:    "the CPU quota stops nginx for a fifth of the time",
				Listener: listener, Processes: processes[:1],
				Evidence: []event.Evidence{{What: "throttled", Value: 1000,
					Unit: "ms"}},
				Fix: []string{"raise or remove the CPU limit"},
				Knobs: []event.Knob{{Name: "cpu.max", Now: "50000 100000",
					Try:   "100000 100000",
					Where: "resources.limits.cpu of pod prod/api-7f9c",
					Why:   "it used 0.9 CPUs when it was allowed to"}},
				Owner: "platform", Confidence: event.ConfidenceLikely,
				Settles: "watch again with the limit removed"},
			{ID: event.FindingBacklogTooSmall, Severity: event.SeverityNote,
				Title: "a limit of 128 is small", Evidence: []event.Evidence{},
				Owner: "application"},
		},
		Counts: counts,
		Ledger: []event.LedgerRow{{NetNS: 4026531840, Counter: "ListenOverflows",
			Kernel: 1234, Synspy: 1234},
			{NetNS: 4026531840, Counter: "ListenDrops", Kernel: 1234, Synspy: 1234}},
		Balanced: ref(true), Timeline: []event.Timeline{timeline},
		Listeners: []event.ListenerView{{Listener: *listener, Processes: processes,
			Counts: counts, Syns: &syns, Accepts: &accepts, Drops: 1234,
			LongestGapMs: ref(uint64(4900)), AcceptWaits: histogram(40, 900, 1400, 350,
				220, 258, 0),
			Stacks: []event.ThreadStack{
				{PID: 812, Comm: "nginx", State: "S", Syscall: "futex",
					Samples: 294, Ms: 14700,
					User: []string{"runtime.futex", "runtime.notesleep",
						"db.(*Pool).Get", "main.handle", "main.acceptLoop"},
					Kernel: []string{"futex_wait_queue", "futex_wait",
						"do_futex"}},
				{PID: 812, TID: 815, Comm: "nginx", OnCPU: true, Samples: 31,
					Ms: 1550,
					User: []string{"crypto/rsa.decrypt",
						"crypto/tls.(*Conn).Handshake"}},
				{PID: 811, Comm: "nginx", State: "S", Syscall: "epoll_wait",
					Samples: 20, Ms: 1000,
					Kernel: []string{"ep_poll", "do_epoll_wait"}},
			},
			WhatIf: &event.WhatIf{Assumes: []string{"clients send a dropped SYN again after 1, 3 and 7 s", "the process accepts as it did in the window"},
				Arrivals: 4310, Observed: 1234,
				Rows: []event.WhatIfRow{{Limit: 128, Workers: 1, Dropped: 1228,
					Lost: 40, WaitMs: 4850, Present: true},
					{Limit: 511, Workers: 1, Dropped: 402, Lost: 0,
						WaitMs: 4900}, {Limit: 1024, Workers: 1,
						WaitMs: 4900},
					{Limit: 128, Workers: 2, Dropped: 1190, Lost: 38,
						WaitMs: 4850}, {Limit: 128, Workers: 1,
						AcceptMs: 100, WaitMs: 96}},
				Says: "no limit helps those who wait 4.9 s; accepts that never take longer than 100 ms drop nothing"}}},
		Clients: []event.ClientCount{{Addr: "10.0.0.7", Drops: 801},
			{Addr: "10.0.0.8", Drops: 433}},
		Cannot: []event.CannotSupport{{Findings: []event.FindingID{event.FindingCPUStarved}, Why: "run delay is not in a recording"}},
	}
}

// hostileDiagnosis is a diagnosis whose every string wants to do something.
func hostileDiagnosis() event.Diagnosis {
	text, err := json.Marshal(incident())
	if err != nil {
		panic(err)
	}
	evil := `</style></title><script>alert(1)</script>` + "\x1b[2J\x00\u202e\"'`<img src=//x onerror=alert(2)>{{.}}\n"
	quoted, _ := json.Marshal(evil)
	for _, s := range []string{"nginx", "prod", "api-7f9c", "app", "runtime.futex", "ep_poll", "10.0.0.7", "db.(*Pool).Get", "pool timeout", "250 ms",
		"raise or remove the CPU limit", "application", "futex", "run delay is not in a recording", "ListenDrops", "watch again with the limit removed",
		"the process accepts as it did in the window", "a limit of 128 is small", "packets", "note", "proven", "S", "cpu_starved", "backlog_too_small",
		"longest time without an accept while the queue was full", "no limit helps those who wait 4.9 s; accepts that never take longer than 100 ms drop nothing",
		"the application's configuration", "a wait of 4.9 s fills the queue of 128 in 0.9 s"} {
		text = bytes.ReplaceAll(text, []byte(`"`+s+`"`), quoted)
	}
	var d event.Diagnosis
	if err := json.Unmarshal(text, &d); err != nil {
		panic(err)
	}
	d.Verdict = evil
	d.Host, d.Kernel, d.Version, d.Command, d.JudgedBy = evil, evil, evil, evil, &event.Program{Version: evil, Command: evil}
	return d
}

func diagnosisText(t *testing.T, d event.Diagnosis, opts Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := Diagnosis(&out, d, opts); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestDiagnosisText(t *testing.T) {
	for name, opts := range map[string]Options{"diagnosis": {Time: ClockUTC}, "diagnosis-80": {Width: 80, Time: ClockUTC},
		"diagnosis-color": {Color: true, Time: ClockUTC}, "diagnosis-plain": {Plain: true, Time: ClockUTC}} {
		t.Run(name, func(t *testing.T) {
			got := diagnosisText(t, incident(), opts)
			golden(t, name, []byte(got))
			width := 100
			if opts.Width > 0 {
				width = opts.Width
			}
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(strings.TrimSpace(line)); !opts.Color && n > width {
					t.Errorf("%d characters: %s", n, line)
				}
			}
		})
	}
	healthy := diagnosisText(t, event.Diagnosis{WindowS: 30, Verdict: "4,310 SYNs arrived, none was dropped",
		Findings: []event.Finding{{ID: event.FindingHealthy, Severity: event.SeverityNote, Title: "the listen path is not the problem"}},
		Ledger:   []event.LedgerRow{{NetNS: 4026531840, Counter: "ListenOverflows"}},
		Balanced: ref(true)}, Options{})
	golden(t, "diagnosis-healthy", []byte(healthy))
}

// TestStackHead: what a thread was seen to do, in the reader's words.
func TestStackHead(t *testing.T) {
	for want, s := range map[string]event.ThreadStack{
		"waiting for a CPU":                {State: "R"},
		"on a CPU":                         {State: "R", OnCPU: true},
		"frozen in accept4":                {State: "S", Syscall: "accept4", Frozen: true},
		"uninterruptibly asleep in accept": {State: "D", Syscall: "accept"},
	} {
		if got := stackDoing(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

// TestDiagnosisHostile: nothing from outside acts, neither on a terminal nor in a
// browser.
func TestDiagnosisHostile(t *testing.T) {
	acts := func(r rune) bool { return r != '\n' && (hidden(r) || r == utf8.RuneError) }
	text := diagnosisText(t, hostileDiagnosis(), Options{})
	if i := strings.IndexFunc(text, acts); i >= 0 {
		t.Errorf("acts on a terminal: %q", text[i:min(i+20, len(text))])
	}
	if !strings.Contains(text, `\x1b[2J\x00\u202e`) {
		t.Error("nothing hostile in it: the test is not what it should be")
	}
	line := diagnosisText(t, hostileDiagnosis(), Options{Format: FormatJSON})
	if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), hidden); i >= 0 {
		t.Errorf("acts on a terminal: %q", line[i:min(i+20, len(line))])
	}
	html := reportHTML(t, hostileDiagnosis())
	keepReport(t, "hostile", html)
	if i := strings.IndexFunc(html, acts); i >= 0 {
		t.Errorf("hidden in HTML: %q", html[i:min(i+20, len(html))])
	}
	for _, tag := range regexp.MustCompile(`<[a-zA-Z/!]+`).FindAllString(html, -1) {
		switch strings.ToLower(strings.Trim(tag, "</")) {
		case "script", "img", "iframe", "link", "object", "embed", "base", "form", "a":
			t.Errorf("%s in the report", tag)
		}
	}
	if n := strings.Count(html, "</style>"); n != 1 {
		t.Errorf("%d times </style>", n)
	}
	if !strings.Contains(html, "&lt;script&gt;") {
		t.Error("nothing hostile in it: the test is not what it should be")
	}
}

func TestDiagnosisJSON(t *testing.T) {
	line := diagnosisText(t, event.Diagnosis{Verdict: "nothing", Findings: []event.Finding{{ID: event.FindingHealthy}}}, Options{Format: FormatJSON})
	want := `{"v":1,"type":"diagnosis","window_s":0,"verdict":"nothing","findings":[{"id":"healthy","severity":"","title":"",` +
		`"evidence":[],"fix":[],"owner":""}],"ledger":[],"timeline":[]}` + "\n"
	if line != want {
		t.Errorf("got  %swant %s", line, want)
	}
	line = diagnosisText(t, incident(), Options{Format: FormatJSON})
	var d event.Diagnosis
	if err := json.Unmarshal([]byte(line), &d); err != nil || strings.Count(line, "\n") != 1 {
		t.Fatal(err)
	}
	if text := diagnosisText(t, d, Options{}); text != diagnosisText(t, incident(), Options{}) {
		t.Error("a diagnosis that was read again reads otherwise")
	}
}

func reportHTML(t *testing.T, d event.Diagnosis) string {
	t.Helper()
	var out bytes.Buffer
	if err := Report(&out, d); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// keepReport keeps a report in the directory that SYNSPY_REPORTS names, to be looked at
// in a browser.
func keepReport(t *testing.T, name, html string) {
	t.Helper()
	if dir := os.Getenv("SYNSPY_REPORTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(html), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReport(t *testing.T) {
	html := reportHTML(t, incident())
	keepReport(t, "incident", html)
	for _, want := range []string{"stood still for 4.9 s", "db.(*Pool).Get", "cpu_throttled", "100000 100000", `class="throttled"`,
		`class="limit"`, `class="retries"`, "10.0.0.8", "accept_queue_full (syn, dropped)", "up to 100 ms", "run delay is not in a recording",
		"prefers-color-scheme", "@media print", "Balanced:"} {
		if !strings.Contains(html, want) {
			t.Errorf("no %q in the report", want)
		}
	}
	if address := regexp.MustCompile(`(?i)https?:|url\(|@import|<script| on[a-z]+=`).FindString(html); address != "" {
		t.Errorf("%q in the report", address)
	}
	if strings.Contains(html, "ZgotmplZ") || strings.Contains(html, "NaN") {
		t.Error("a value that html/template refused, or no number")
	}
}

// TestReportSize: whatever a diagnosis holds, a report is small.
func TestReportSize(t *testing.T) {
	d := incident()
	long := strings.Repeat("\x1b<é", 1000)
	v := d.Listeners[0]
	v.Stacks = nil
	for range 1000 {
		v.Stacks = append(v.Stacks, event.ThreadStack{Comm: long, User: slices.Repeat([]string{long}, 50)})
	}
	for i := range d.Timeline[0].Points {
		p := &d.Timeline[0].Points[i]
		p.AcceptQueue = &event.Queue{Len: uint32(i*7919) % 60_000, Limit: uint32(60_000 + i%3)}
		p.Throttled = i%2 == 0
		p.Arrivals = ref(uint64(i*7919) % 60_000)
	}
	f := d.Findings[0]
	f.Evidence = slices.Repeat([]event.Evidence{{What: long, Value: long, Unit: long}}, 100)
	f.Fix, f.Knobs = slices.Repeat([]string{long}, 100), slices.Repeat([]event.Knob{{Name: long, Now: long, Try: long, Where: long, Why: long}}, 100)
	for i := range 200 {
		l := v
		l.Listener.Cookie = uint64(i + 1)
		timeline := d.Timeline[0]
		timeline.Listener = &l.Listener
		d.Listeners, d.Timeline = append(d.Listeners, l), append(d.Timeline, timeline)
		d.Findings = append(d.Findings, f)
		d.Clients = append(d.Clients, event.ClientCount{Addr: long, Drops: 1})
		d.Ledger = append(d.Ledger, event.LedgerRow{Counter: long, Kernel: 1, Synspy: 1})
		d.Cannot = append(d.Cannot, event.CannotSupport{Why: long})
	}
	html := reportHTML(t, d)
	keepReport(t, "large", html)
	if len(html) > 1<<20 {
		t.Errorf("%d bytes", len(html))
	}
}

// TestReportEmpty: nothing is known, and nothing is made up.
func TestReportEmpty(t *testing.T) {
	for _, d := range []event.Diagnosis{{}, {Verdict: "x", Timeline: []event.Timeline{{StepMs: 50, Points: []event.TimelinePoint{{}}}},
		Listeners: []event.ListenerView{{AcceptWaits: []event.Bucket{{Count: 1}}, WhatIf: &event.WhatIf{}, Stacks: []event.ThreadStack{{}}}}}} {
		html := reportHTML(t, d)
		if strings.Contains(html, "<svg") || strings.Contains(html, "Balanced:") {
			t.Errorf("got:\n%s", html)
		}
		if err := Diagnosis(io.Discard, d, Options{}); err != nil {
			t.Error(err)
		}
	}
}

// TestChartGaps: what was not read is no line at zero.
func TestChartGaps(t *testing.T) {
	values := []float64{1, 1, math.NaN(), 2}
	if got, want := steps(values, 2), "M0,50H500M750,0H1000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := area(values, 2), "M0,100V50H500V100ZM750,100V0H1000V100Z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	timeline := event.Timeline{StepMs: 100, Points: []event.TimelinePoint{
		{OffsetMs: 0, AcceptQueue: &event.Queue{Len: 1, Limit: 2}}, {OffsetMs: 200, Drops: ref(uint64(3))}}}
	b := newBins(&timeline, 1)
	if len(b.accept) != 10 || b.accept[0] != 1 || !math.IsNaN(b.accept[1]) || b.drops[2] != 30 || !math.IsNaN(b.drops[0]) {
		t.Errorf("%+v", b)
	}
}

// TestThreadsOnce: several sockets of one process at one place, a SO_REUSEPORT group, have its threads in common.
func TestThreadsOnce(t *testing.T) {
	d := incident()
	again, others := d.Listeners[0], d.Listeners[0]
	others.Stacks = slices.Clone(others.Stacks[1:])
	d.Listeners = append(d.Listeners, again, others)
	text := diagnosisText(t, d, Options{})
	if n := strings.Count(text, "THREADS of"); n != 2 {
		t.Errorf("%d blocks of threads, want 2:\n%s", n, text)
	}
}
