// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/synspy/synspy/internal/event"
)

const (
	migrateSysctl   = "net.ipv4.tcp_migrate_req"
	migratedCounter = "TCPMigrateReqSuccess"
)

// handover is a SO_REUSEPORT group of two, of which the first member to open is
// the one that leaves: all clients were its own.
type handover struct {
	leaving, staying *Server
	queued           []*Client // finished handshakes
	half             []*Client // half-open ones
}

// handOver gives a member its clients, opens a second one, and closes the first.
func (w *World) handOver(ctx context.Context, f family, queued, halfOpen, stayingBacklog int) (*handover, error) {
	// Without cookies: a group that never sent one seems to have for two minutes, when
	// jiffies come to 0, five minutes after booting.
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "0"); err != nil {
		return nil, err
	}
	member := func(comm string, backlog int) (*Server, error) {
		return w.StartServer(ServerConfig{Comm: []byte(comm), Listeners: []ListenConfig{
			{Addr: f.listener, Backlog: backlog, ReusePort: true},
		}})
	}
	h := &handover{}
	var err error
	if h.leaving, err = member("lab-leaving", 16); err != nil {
		return nil, err
	}
	h.queued = w.clients(f.server, queued)
	for _, c := range h.queued {
		if err := c.Handshake(ctx); err != nil {
			return nil, err
		}
	}
	if h.half, err = w.Burst(ctx, f.server, halfOpen); err != nil {
		return nil, err
	}
	if err := wantAnswers(h.half, halfOpen); err != nil {
		return nil, err
	}
	if h.staying, err = member("lab-staying", stayingBacklog); err != nil {
		return nil, err
	}
	if err := h.leaving.CloseListeners(); err != nil {
		return nil, err
	}
	return h, w.Barrier(ctx)
}

// migrate allows members to take over each other's handshakes: 5.14. Stable updates have
// brought the sysctl to kernels that do not (5.10.223), which have no counter of it.
func (w *World) migrate() error {
	all, err := w.stats()
	if err != nil {
		return err
	}
	if _, counts := all[migratedCounter]; !counts {
		return fmt.Errorf("%w: it needs listeners that take over each other's handshakes (5.14)", ErrCannotHold)
	}
	return w.Sysctl(migrateSysctl, "1")
}

// playReuseportMigration migrates in the three ways there are: the queued children when
// their listener closes (inet_csk_listen_stop), half-open handshakes by their ACK
// (tcp_v4_rcv) or by their timer (reqsk_timer_handler), which sends the SYN-ACK again.
func playReuseportMigration(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const queued, byACK, byTimer = 3, 2, 2
		var none Expectation
		if err := w.migrate(); err != nil {
			return none, err
		}
		before, err := w.stats()
		if err != nil {
			return none, err
		}
		h, err := w.handOver(ctx, f, queued, byACK+byTimer, 16)
		if err != nil {
			return none, err
		}
		if err := w.wantQueues(queued, byACK+byTimer); err != nil {
			return none, err
		}
		if err := w.each(ctx, h.half[:byACK], (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(queued+byACK, byTimer); err != nil {
			return none, err
		}
		for _, c := range h.half[byACK:] {
			if err := c.wait(ctx, "a second SYN-ACK", func() bool { return c.SYNACKs() > 1 }); err != nil {
				return none, err
			}
			if err := c.ACK(); err != nil {
				return none, err
			}
		}
		if err := w.wantQueues(queued+byACK+byTimer, 0); err != nil {
			return none, err
		}
		all := append(h.queued, h.half...)
		if err := w.each(ctx, all, func(c *Client) error { return c.Data([]byte("GET /")) }); err != nil {
			return none, err
		}
		if err := wantNoReset("migrated connections", all); err != nil {
			return none, err
		}
		if err := w.wantMoved(before, stats{migratedCounter: uint64(len(all)), "TCPMigrateReqFailure": 0}); err != nil {
			return none, err
		}
		log("server %d closed its listener; server %d took over its %d queued and %d half-open clients", h.leaving.PID, h.staying.PID, queued, len(h.half))

		e := Expectation{Counters: counters(nil), Syns: w.Syns()}
		e.owners(h.leaving, h.staying)
		return e, nil
	}
}

// playReuseportMigrationFull is of two listeners: the one that the request names has
// closed, the one that drops is the other.
func playReuseportMigrationFull(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const lost = 2
		var none Expectation
		if err := w.migrate(); err != nil {
			return none, err
		}
		h, err := w.handOver(ctx, f, 0, lost, backlog)
		if err != nil {
			return none, err
		}
		if err := w.Handshakes(ctx, f.server, capacity); err != nil {
			return none, err
		}
		if err := w.each(ctx, h.half, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(capacity, lost); err != nil {
			return none, err
		}
		if err := wantNoReset("ACKs into a full accept queue", h.half); err != nil {
			return none, err
		}
		log("server %d closed its listener; the ACKs of its %d half-open clients met the full accept queue of server %d", h.leaving.PID, lost, h.staying.PID)

		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseAcceptQueueFull, Stage: event.StageAck, Action: event.ActionDropped, Count: lost,
				Listener: f.listener, AcceptQueue: overfull, Clients: addresses(h.half), Attempts: first(lost), PIDs: []int{h.staying.PID},
			}},
			Counters: counters(map[event.Counter]uint64{
				event.CounterListenOverflows: lost,
				event.CounterListenDrops:     lost,
			}),
			Syns: w.Syns(), Handshakes: lost,
		}
		e.owners(h.leaving, h.staying)
		return e, nil
	}
}

// playReuseportClosed is the same group without migration. The ACK of a half-open
// handshake finds its listener gone, and then the other one, to which it is a stray
// ACK: the RST is that listener's, the loss is not.
func playReuseportClosed(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const queued, halfOpen = 3, 2
		var none Expectation
		// Before 5.14 there is nothing to turn off.
		if err := w.Sysctl(migrateSysctl, "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return none, err
		}
		h, err := w.handOver(ctx, f, queued, halfOpen, 16)
		if err != nil {
			return none, err
		}
		if err := wantReset("queued clients", h.queued); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, halfOpen); err != nil {
			return none, err
		}
		if err := w.each(ctx, h.half, (*Client).ACK); err != nil {
			return none, err
		}
		if err := wantReset("half-open clients", h.half); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, 0); err != nil {
			return none, err
		}
		log("server %d closed its listener: %d queued clients were reset at once, %d half-open ones by their ACK; server %d took over none", h.leaving.PID, queued, halfOpen, h.staying.PID)

		e := Expectation{
			Records: []Expect{
				{
					Cause: event.CauseListenerClosed, Stage: event.StageClose, Action: event.ActionReset, Count: queued,
					Listener: f.listener, Clients: addresses(h.queued),
				},
				{
					Cause: event.CauseListenerClosed, Stage: event.StageAck, Action: event.ActionReset, Count: halfOpen,
					Listener: f.listener, Clients: addresses(h.half), Attempts: first(halfOpen),
				},
			},
			Counters: counters(nil), Syns: w.Syns(),
		}
		e.owners(h.leaving, h.staying)
		return e, nil
	}
}
