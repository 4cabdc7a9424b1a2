// SPDX-License-Identifier: Apache-2.0

package session

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/ledger"
)

func page(netns uint64, began ledger.Began, counted,
	filtered map[event.Outcome]uint64) ledger.Page {
	p := ledger.Page{NetNS: netns, Began: began}
	for o, n := range counted {
		p.Counted[o] = n
	}
	for o, n := range filtered {
		p.Filtered[o] = n
	}
	return p
}

func TestSharedRows(t *testing.T) {
	type counts = map[event.Outcome]uint64
	row := func(counter string, kernel, synspy, filtered uint64) event.LedgerRow {
		return event.LedgerRow{NetNS: 7, Counter: counter, Kernel: kernel, Synspy: synspy,
			Filtered: filtered, Shared: true}
	}
	for _, c := range []struct {
		name             string
		page             ledger.Page
		opening, closing kernel.SNMP
		want             []event.LedgerRow
	}{
		{"moved by others", page(7, ledger.BeganBefore, nil, nil),
			kernel.SNMP{"TcpOutRsts": 5, "ListenDrops": 1}, kernel.SNMP{"TcpOutRsts": 8,
				"ListenDrops": 4},
			[]event.LedgerRow{row("TcpOutRsts", 3, 0, 0)}},
		{"nothing moved", page(7, ledger.BeganBefore, nil, nil),
			kernel.SNMP{"TcpOutRsts": 5,
				"TCPMD5Failure": 9}, kernel.SNMP{"TcpOutRsts": 5,
				"TCPMD5Failure": 9}, nil},
		{"explained, in the order of the table", page(7, ledger.BeganBefore,
			counts{event.OutcomeIngressChecksum: 4,
				event.OutcomeIngressRPFilter: 2}, counts{
				event.OutcomeIngressChecksum: 3}),
			kernel.SNMP{"IPReversePathFilter": 1, "TcpInCsumErrors": 10,
				"IpExtInCsumErrors": 3, "IpInHdrErrors": 3},
			kernel.SNMP{"IPReversePathFilter": 6, "TcpInCsumErrors": 15,
				"IpExtInCsumErrors": 3, "IpInHdrErrors": 3},
			[]event.LedgerRow{row("IPReversePathFilter", 5, 2, 0),
				row("TcpInCsumErrors", 5, 4, 3)}},
		{"explained, and not moved: it shows",
			page(7, ledger.BeganBefore, counts{event.OutcomeIngressRPFilter: 2}, nil),
			kernel.SNMP{"IPReversePathFilter": 1},
			kernel.SNMP{"IPReversePathFilter": 1},
			[]event.LedgerRow{row("IPReversePathFilter", 0, 2, 0)}},
		{"a counter went back",
			page(7, ledger.BeganBefore, counts{event.OutcomeIngressRPFilter: 2}, nil),
			kernel.SNMP{"IPReversePathFilter": 1,
				"ListenDrops": 3}, kernel.SNMP{"IPReversePathFilter": 5,
				"ListenDrops": 2}, nil},
		{"a counter that only one reading has", page(7, ledger.BeganBefore, nil, nil),
			kernel.SNMP{"TcpOutRsts": 1}, kernel.SNMP{"TcpOutRsts": 1,
				"TCPAOBad": 4}, nil},
		{"began since: the opening is another's",
			page(7, ledger.BeganSince, counts{event.OutcomeIngressRPFilter: 20}, nil),
			kernel.SNMP{"IPReversePathFilter": 5},
			kernel.SNMP{"IPReversePathFilter": 20},
			[]event.LedgerRow{row("IPReversePathFilter", 20, 20, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want,
				sharedRows(&c.page, c.opening, c.closing)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSharedLedger reads the namespace that the test is in: which pages get rows.
func TestSharedLedger(t *testing.T) {
	own, err := kernel.Inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// It cannot have moved so much meanwhile, so the rows are those of these packets.
	const packets = 1 << 40
	counted := map[event.Outcome]uint64{event.OutcomeIngressRPFilter: packets}
	opened := func(t *testing.T) *sharedLedger {
		t.Helper()
		l := beginShared(own, slog.New(slog.DiscardHandler))
		for began := time.Now(); len(l.listed) == 0 && time.Since(began) < 20*time.Second; {
			time.Sleep(time.Millisecond) // open itself waits for less than a busy machine may take
		}
		l.open()
		if len(l.opening) != 1 || l.opening[own].counters == nil {
			t.Fatalf("opening values of %d namespaces, want the own one's",
				len(l.opening))
		}
		return l
	}
	gone := page(own, ledger.BeganBefore, counted, nil)
	gone.Gone = true
	for _, c := range []struct {
		name  string
		page  ledger.Page
		spoil func(*sharedLedger)
		want  bool
	}{
		{"there all the time", page(own, ledger.BeganBefore, counted, nil), nil, true},
		{"met later, through the same task", page(own, ledger.BeganUnknown, counted, nil),
			nil, true},
		{"met later, the task is another", page(own, ledger.BeganUnknown, counted, nil),
			func(l *sharedLedger) {
				g := l.opening[own]
				g.started++
				l.opening[own] = g
			}, false},
		{"read through nobody who is there now",
			page(own, ledger.BeganBefore, counted, nil),
			func(l *sharedLedger) {
				l.through[own] = kernel.NetNS{Inode: own,
					Through: []uint32{1 << 30}}
			}, true},
		{"no opening values", page(own, ledger.BeganBefore, counted, nil),
			func(l *sharedLedger) { delete(l.opening, own) }, false},
		{"began since", page(own, ledger.BeganSince, counted, nil),
			func(l *sharedLedger) { delete(l.opening, own) }, true},
		{"gone", gone, nil, false},
		{"of a number that nobody has", page(1, ledger.BeganSince, counted, nil), nil,
			false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := opened(t)
			if c.spoil != nil {
				c.spoil(l)
			}
			rows := l.Close([]ledger.Page{c.page})
			found := slices.ContainsFunc(rows, func(r event.LedgerRow) bool {
				return r.NetNS == own && r.Counter == "IPReversePathFilter" &&
					r.Synspy == packets && r.Shared
			})
			if found != c.want {
				t.Errorf("a row: %v, want %v: %+v", found, c.want, rows)
			}
		})
	}
}

// TestWithRows: a namespace's rows stay together.
func TestWithRows(t *testing.T) {
	got := WithRows([]event.LedgerRow{{NetNS: 1, Counter: "a"}, {NetNS: 1, Counter: "b"},
		{NetNS: 3, Counter: "a"}},
		[]event.LedgerRow{{NetNS: 3, Counter: "x"}, {NetNS: 1, Counter: "x"},
			{NetNS: 2, Counter: "x"}})
	var names []string
	for _, r := range got {
		names = append(names, string(rune('0'+r.NetNS))+r.Counter)
	}
	if want := []string{"1a", "1b", "1x", "2x", "3a", "3x"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
