// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// dropping is a trace of one listener that this process holds, and a message of a SYN that it
// dropped.
func dropping(format render.Format) (*Trace, *message.Message) {
	const socket = 1
	log := slog.New(slog.DiscardHandler)
	s := &session.Session{Log: log, Probe: &probe.Probe{}, Owners: owner.New("/proc", log),
		Listeners: session.NewListeners(load.Filter{}), Sampling: session.NewSampling(log),
		AcceptsRead: map[uint64]uint64{socket: math.MaxUint64}}
	s.Refresher = session.NewRefresher(func() error { return nil }, func() uint64 { return 1 },
		log)
	s.Owners.Opened(socket, 7, uint32(os.Getpid()), "app.test")
	s.Sampling.At[socket] = math.MaxUint64 / 2
	t := New(s, render.NewStream(io.Discard, render.Options{Format: format}), Options{})
	t.kept = false
	return t, &message.Message{Kind: message.KindRecord, Time: kernel.Monotonic(),
		Outcome: event.OutcomeSynAcceptQueueFull, HasFlow: true, Attempt: 1,
		Proof: event.ProofState, NetNS: 1,
		Client: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"),
			Port: 40000}, Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"),
			Port: 80},
		Listener: message.Listener{Known: true, Member: true, Socket: socket, Cookie: 1,
			Inode: 7, Cgroup: 3, NetNS: 1, Addr: netip.IPv4Unspecified(),
			Port: 80, Accept: event.Queue{Len: 129,
				Limit: 128}, Syn: event.SynQueue{Len: 1, Limit: 128}}}
}

// TestRecordsAllocateNothing: once its listener is known, a record costs no allocation on its way
// to the stream and through it.
func TestRecordsAllocateNothing(t *testing.T) {
	for name, format := range map[string]render.Format{"table": render.FormatTable,
		"json": render.FormatJSON} {
		tr, m := dropping(format)
		if n := testing.AllocsPerRun(1000, func() {
			if err := tr.message(m); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations a record", name, n)
		}
	}
}

// keeping is a stream that keeps what it is given.
type keeping struct {
	nowhere
	drops []*event.Drop
}

func (k *keeping) Drop(d *event.Drop) error {
	k.drops = append(k.drops, d)
	return nil
}

// TestRecordsAreKept: where the stream keeps what it is given, the next record takes nothing of it.
func TestRecordsAreKept(t *testing.T) {
	tr, m := dropping(render.FormatJSON)
	var kept keeping
	tr.stream, tr.kept = &kept, true
	for port := range uint16(3) {
		m.Client.Port = port
		m.Listener.Accept.Len = uint32(port)
		if err := tr.message(m); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range kept.drops {
		if d.Client.Port != uint16(i) || d.Listener.AcceptQueue.Len != uint32(i) ||
			len(d.Processes) != 1 {
			t.Errorf("record %d: %+v", i, d)
		}
	}
}

// BenchmarkRecord is a record's journey from its message through a stream to nowhere; with none the
// stream throws it away.
func BenchmarkRecord(b *testing.B) {
	formats := map[string]render.Format{"table": render.FormatTable, "none": 0,
		"json": render.FormatJSON}
	for name, format := range formats {
		b.Run(name, func(b *testing.B) {
			tr, m := dropping(format)
			if name == "none" {
				tr.stream = nowhere{}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := tr.message(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// nowhere is a stream that throws records away.
type nowhere struct{ render.Stream }

func (nowhere) Drop(*event.Drop) error { return nil }
