// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

const (
	migrateSysctl   = "net.ipv4.tcp_migrate_req"
	migratedCounter = "TCPMigrateReqSuccess"
)

// handover is a SO_REUSEPORT group of two, of which the first member to open is
// the one that leaves: all clients were its own.
type handover struct {
	leaving, staying *server.Server
	queued           []*world.Client // finished handshakes
	half             []*world.Client // half-open ones
}

// handOver gives a member its clients, opens a second one, and closes the first.
func handOver(ctx context.Context, w *world.World, f world.Family, queued, halfOpen,
	stayingBacklog int) (*handover, error) {
	// Without cookies: a group that never sent one seems to have for two minutes, when
	// jiffies come to 0, five minutes after booting.
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "0"); err != nil {
		return nil, err
	}
	member := func(comm string, backlog int) (*server.Server, error) {
		return server.Start(w,
			server.Config{Comm: []byte(comm), Listeners: []server.ListenConfig{
				{Addr: f.Listener, Backlog: backlog, ReusePort: true},
			}})
	}
	h := &handover{}
	var err error
	if h.leaving, err = member("lab-leaving", 16); err != nil {
		return nil, err
	}
	h.queued = w.Clients(f.Server, queued)
	for _, c := range h.queued {
		if err := c.Handshake(ctx); err != nil {
			return nil, err
		}
	}
	if h.half, err = w.Burst(ctx, f.Server, halfOpen); err != nil {
		return nil, err
	}
	if err := scenario.WantAnswers(h.half, halfOpen); err != nil {
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
func migrate(w *world.World) error {
	all, err := w.Stats()
	if err != nil {
		return err
	}
	if _, counts := all[migratedCounter]; !counts {
		return fmt.Errorf("%w: it needs listeners that take over each other's handshakes (5.14)", world.ErrCannotHold)
	}
	return w.Sysctl(migrateSysctl, "1")
}

// playReuseportMigration migrates in the three ways there are: the queued children when
// their listener closes (inet_csk_listen_stop), half-open handshakes by their ACK
// (tcp_v4_rcv) or by their timer (reqsk_timer_handler), which sends the SYN-ACK again.
func playReuseportMigration(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const queued, byACK, byTimer = 3, 2, 2
		var none scenario.Expectation
		if err := migrate(w); err != nil {
			return none, err
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}
		h, err := handOver(ctx, w, f, queued, byACK+byTimer, 16)
		if err != nil {
			return none, err
		}
		if err := w.WantQueues(queued, byACK+byTimer); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, h.half[:byACK], (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(queued+byACK, byTimer); err != nil {
			return none, err
		}
		for _, c := range h.half[byACK:] {
			if err := c.Wait(ctx, "a second SYN-ACK",
				func() bool { return c.SYNACKs() > 1 }); err != nil {
				return none, err
			}
			if err := c.ACK(); err != nil {
				return none, err
			}
		}
		if err := w.WantQueues(queued+byACK+byTimer, 0); err != nil {
			return none, err
		}
		all := append(h.queued, h.half...)
		if err := scenario.Each(ctx, w, all,
			func(c *world.Client) error {
				return c.Data([]byte("GET /"))
			}); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("migrated connections", all); err != nil {
			return none, err
		}
		if err := w.WantMoved(before, world.Stats{migratedCounter: uint64(len(all)),
			"TCPMigrateReqFailure": 0}); err != nil {
			return none, err
		}
		log("server %d closed its listener; server %d took over its %d queued and %d half-open clients", h.leaving.PID, h.staying.PID, queued, len(h.half))

		e := scenario.Expectation{Counters: scenario.Counters(nil), Syns: w.Syns()}
		e.Owners(h.leaving, h.staying)
		return e, nil
	}
}

// playReuseportMigrationFull is of two listeners: the one that the request names has
// closed, the one that drops is the other.
func playReuseportMigrationFull(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const lost = 2
		var none scenario.Expectation
		if err := migrate(w); err != nil {
			return none, err
		}
		h, err := handOver(ctx, w, f, 0, lost, world.Backlog)
		if err != nil {
			return none, err
		}
		if err := w.Handshakes(ctx, f.Server, world.Capacity); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, h.half, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(world.Capacity, lost); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("ACKs into a full accept queue",
			h.half); err != nil {
			return none, err
		}
		log("server %d closed its listener; the ACKs of its %d half-open clients met the full accept queue of server %d", h.leaving.PID, lost, h.staying.PID)

		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseAcceptQueueFull, Stage: event.StageAck,
				Action: event.ActionDropped, Count: lost,
				Listener: f.Listener, AcceptQueue: scenario.Overfull,
				Clients:  scenario.Addresses(h.half),
				Attempts: scenario.First(lost), PIDs: []int{h.staying.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterListenOverflows: lost,
				event.CounterListenDrops:     lost,
			}),
			Syns: w.Syns(), Handshakes: lost,
		}
		e.Owners(h.leaving, h.staying)
		return e, nil
	}
}

// playReuseportClosed is the same group without migration. The ACK of a half-open
// handshake finds its listener gone, and then the other one, to which it is a stray
// ACK: the RST is that listener's, the loss is not.
func playReuseportClosed(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const queued, halfOpen = 3, 2
		var none scenario.Expectation
		// Before 5.14 there is nothing to turn off.
		if err := w.Sysctl(migrateSysctl, "0"); err != nil &&
			!errors.Is(err, fs.ErrNotExist) {
			return none, err
		}
		h, err := handOver(ctx, w, f, queued, halfOpen, 16)
		if err != nil {
			return none, err
		}
		if err := scenario.WantReset("queued clients", h.queued); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, halfOpen); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, h.half, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := scenario.WantReset("half-open clients", h.half); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, 0); err != nil {
			return none, err
		}
		log("server %d closed its listener: %d queued clients were reset at once, %d half-open ones by their ACK; server %d took over none", h.leaving.PID, queued, halfOpen, h.staying.PID)

		e := scenario.Expectation{
			Records: []scenario.Expect{
				{
					Cause: event.CauseListenerClosed, Stage: event.StageClose,
					Action: event.ActionReset, Count: queued,
					Listener: f.Listener, Clients: scenario.Addresses(h.queued),
				},
				{
					Cause: event.CauseListenerClosed, Stage: event.StageAck,
					Action: event.ActionReset, Count: halfOpen,
					Listener: f.Listener, Clients: scenario.Addresses(h.half),
					Attempts: scenario.First(halfOpen),
				},
			},
			Counters: scenario.Counters(nil), Syns: w.Syns(),
		}
		e.Owners(h.leaving, h.staying)
		return e, nil
	}
}
