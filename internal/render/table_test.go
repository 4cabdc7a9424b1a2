// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-update rewrites it):\n%s", file, diff)
	}
}

func peer(addr string, port uint16) *event.Endpoint {
	return &event.Endpoint{Addr: netip.MustParseAddr(addr), Port: port}
}

// scene is a run with something of everything.
func scene() []*event.Drop {
	at := func(ms int64, change func(*event.Drop)) *event.Drop {
		d := typical()
		d.Time.Time = d.Time.Add(time.Duration(ms) * time.Millisecond)
		change(d)
		return d
	}
	return []*event.Drop{
		at(0, func(*event.Drop) {}),
		at(4, func(d *event.Drop) {
			d.Client, d.Attempt = peer("192.168.100.200", 51235), 11
			d.Stage, d.Action, d.ClientSees = event.StageAck, event.ActionReset, "reset"
			d.Pod, d.Container.Name = nil, "nginx-proxy"
		}),
		at(15, func(d *event.Drop) { // suppression of a bare ACK: no row
			d.Cause, d.Stage, d.Action = event.CauseDeferAccept, event.StageAck,
				event.ActionIgnored
		}),
		at(20, func(d *event.Drop) {
			d.Client, d.Server = peer("2001:db8:85a3:1234:5678:8a2e:370:7334", 51236),
				peer("2001:db8::1", 443)
			d.Pod, d.Container.Name = nil, ""
		}),
		at(1000, func(d *event.Drop) {
			d.Cause, d.Proof = event.CauseSynQueueFull, event.ProofState
			d.Container, d.Pod, d.Attempt = nil, nil, 0
			d.Cgroup.Path = "/system.slice/nginx.service"
			d.Processes = d.Processes[:1]
		}),
		at(1001, func(d *event.Drop) { // nobody's
			d.Cause, d.Stage, d.Action = event.CauseNoListener, event.StageIngress,
				event.ActionReset
			d.Proof, d.Kernel = event.ProofReason,
				event.Kernel{Function: "tcp_v4_rcv", Reason: "NO_SOCKET"}
			d.Listener, d.Processes, d.Container, d.Pod, d.Cgroup = nil, nil, nil, nil,
				nil
			d.ClientSees = "refused"
		}),
		at(1002, func(d *event.Drop) { // no packet
			d.Cause, d.Stage, d.Client, d.Server, d.ClientSees = event.CauseHandshakeExpired, event.StageTimer, nil, nil, ""
		}),
		at(1003, func(d *event.Drop) {
			d.Type, d.Cause, d.Action = "cookie", event.CauseUnknown,
				event.ActionUnknown
		}),
		at(1500, func(d *event.Drop) {
			d.Processes[0].Comm = "\x1b[2J\u202eevil\xff"
			d.Pod.Name = "pod\nforged"
			d.Cause = event.CauseSynBacklogReserve
		}),
	}
}

func summary() event.Summary {
	return event.Summary{
		Header: event.Head("summary"), DurationMs: 30_000,
		Counts: []event.Count{
			{Cause: event.CauseSynQueueFull, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: 1},
			{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: 1234},
			{Cause: event.CauseAcceptQueueFull, Stage: event.StageAck,
				Action: event.ActionReset, Count: 7},
			{Cause: event.CauseNoListener, Stage: event.StageIngress,
				Action: event.ActionReset, Count: 1},
			{Cause: event.CauseDeferAccept, Stage: event.StageAck,
				Action: event.ActionIgnored, Count: 12},
		},
		Delivered: 255, Suppressed: 1000, Handshakes: 431, Cookies: 2,
		Seen: []event.Seen{{Syn: 4000, Ack: 2500}, {Syn: 310, Ack: 1}, {}},
		Ledger: []event.LedgerRow{
			{NetNS: 4026531840, Counter: "ListenOverflows", Kernel: 1241, Synspy: 1241},
			{NetNS: 4026531840, Counter: "ListenDrops", Kernel: 1245, Synspy: 1244,
				Unattributed: 1, Filtered: 2},
			{NetNS: 4026531840, Counter: "TCPReqQFullDrop", Kernel: 1, Synspy: 1},
			{NetNS: 4026531840, Counter: "SyncookiesSent"},
			{NetNS: 4026531840, Counter: "TcpInCsumErrors", Kernel: 5, Shared: true},
			{NetNS: 4026532999, Counter: "ListenDrops", Gone: true},
		},
		Balanced: true,
	}
}

func play(t *testing.T, opts Options, sum event.Summary) []byte {
	t.Helper()
	opts.Start = start.Add(-2500 * time.Millisecond)
	if opts.Time == ClockLocal {
		opts.Time = ClockUTC
	}
	var buf bytes.Buffer
	s := NewStream(&buf, opts)
	errs := []error{s.Ready(event.Ready{Header: event.Head("ready"), Backend: "trampoline",
		Kernel: "6.18.5",
		Hooks: []event.Hook{{Name: "tcp_conn_request", Backend: "trampoline",
			Attached: true}}})}
	for _, d := range scene() {
		errs = append(errs, s.Drop(d))
	}
	l := typical().Listener
	errs = append(errs,
		s.Suppressed(event.Suppressed{Header: event.Head("suppressed"), Count: 1234,
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Listener: l}),
		s.Suppressed(event.Suppressed{Header: event.Head("lost"), Count: 3}),
		s.Summary(sum), s.Flush())
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func TestStreamGolden(t *testing.T) {
	off := summary()
	off.Balanced, off.Ledger[0].Synspy, off.Ledger[2].Kernel = false, 1242, 9
	for name, c := range map[string]struct {
		opts Options
		sum  event.Summary
	}{
		"stream-default":  {Options{Rate: 100}, summary()},
		"stream-80":       {Options{Width: 80, Rate: 100}, summary()},
		"stream-200":      {Options{Width: 200}, summary()},
		"stream-relative": {Options{Time: ClockRelative}, summary()},
		"stream-wide":     {Options{Format: FormatWide}, summary()},
		"stream-json":     {Options{Format: FormatJSON}, summary()},
		"stream-color":    {Options{Color: true, Rate: 100}, off},
		"stream-off":      {Options{}, off},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, play(t, c.opts, c.sum)) })
	}
}

// TestWidth: no line of a stream is wider than its terminal.
func TestWidth(t *testing.T) {
	for width := range 200 {
		var buf bytes.Buffer
		s := NewStream(&buf, Options{Width: width, Time: ClockUTC})
		limit := width
		if width == 0 {
			limit = 119
		}
		for _, d := range scene() {
			if err := s.Drop(d); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(buf.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > limit {
				t.Errorf("width %d: %d characters: %s", width, n, line)
			}
		}
	}
}

func TestSummaryGolden(t *testing.T) {
	for name, sum := range map[string]event.Summary{
		"summary-quiet": {Balanced: true, DurationMs: 5400_000,
			Seen: make([]event.Seen, 1), Ledger: make([]event.LedgerRow, 10)},
		"summary-nothing": {Balanced: true},
	} {
		var buf bytes.Buffer
		s := NewStream(&buf, Options{})
		if err := s.Summary(sum); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		golden(t, name, buf.Bytes())
	}
}

func TestCheckGolden(t *testing.T) {
	rows := []CheckRow{
		{Name: "CAP_BPF", Status: CheckOK, Detail: "effective"},
		{Name: "CAP_PERFMON", Status: CheckRefused, Detail: "not effective",
			Remedy: "run as root, or setcap cap_bpf,cap_perfmon+ep"},
		{Name: "BTF", Status: CheckMissing, Detail: "/sys/kernel/btf/vmlinux: \x1b[31mnone",
			Remedy: "--btf FILE"},
		{Name: "bpf_get_func_ret", Status: CheckUnknown},
	}
	hooks := []event.Hook{
		{Name: "tcp_conn_request", Backend: "trampoline", Attached: true},
		{Name: "tcp_v4_syn_recv_sock", Backend: "kprobe", Attached: true,
			Note: "has 7 arguments"},
		{Name: "tcp_req_err", Backend: "trampoline", Note: "no such function"},
	}
	for name, opts := range map[string]Options{
		"check": {}, "check-color": {Color: true}, "check-json": {Format: FormatJSON},
	} {
		var buf bytes.Buffer
		if err := CheckTable(&buf, rows, opts); err != nil {
			t.Fatal(err)
		}
		if err := HookTable(&buf, hooks, opts); err != nil {
			t.Fatal(err)
		}
		golden(t, name, buf.Bytes())
	}
}

func TestLines(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{QuietLine([]event.Seen{{Syn: 4000}, {Syn: 310}, {}}, 10*time.Second),
			"0 of 4,310 SYNs dropped on 3 listeners in the last 10 s"},
		{QuietLine([]event.Seen{{Syn: 4310}}, 10*time.Second,
			event.Filter{Name: "port", Value: "443"},
			event.Filter{Name: "cause", Value: "netfilter"}),
			"0 SYNs dropped, of those that pass --cause netfilter; 4,310 SYNs came to 1 listener in the last 10 s"},
		{QuietLine([]event.Seen{{Syn: 4310}}, 10*time.Second,
			event.Filter{Name: "port",
				Value: "443"}), "0 of 4,310 SYNs dropped on 1 listener in the last 10 s"},
		{QuietLine(nil, 10*time.Second), "0 SYNs reached a listener in the last 10 s"},
		{QuietLine([]event.Seen{{Syn: 1}}, 90*time.Minute),
			"0 of 1 SYN dropped on 1 listener in the last 1 h 30 min"},
		{StatusLine(event.Ready{Backend: "trampoline", Kernel: "6.18\x1b",
			Hooks: []event.Hook{
				{Name: "a", Attached: true}, {Name: "b", Attached: true},
				{Name: "c", Note: "refused"}}}),
			`watching on Linux 6.18\x1b, backend trampoline, 2 hooks; not attached: c (refused)`},
		{Thousands(0), "0"}, {Thousands(999), "999"}, {Thousands(1000), "1,000"},
		{Thousands(1<<64 - 1), "18,446,744,073,709,551,615"},
		{seconds(1500 * time.Millisecond), "1.5 s"}, {seconds(time.Minute), "1 min"},
		{seconds(0), "0 s"},
	} {
		if c.got != c.want {
			t.Errorf("got  %q\nwant %q", c.got, c.want)
		}
	}
}
