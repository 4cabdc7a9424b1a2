// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// SlowConfig is what tests shorten.
type SlowConfig struct {
	Pause   time.Duration // the server's, after each accept()
	Timeout time.Duration // the clients', for connect()
	Rounds  int           // of clients
	Abort   bool
}

var (
	slowAccept      = SlowConfig{Pause: 5 * time.Second, Timeout: 3 * time.Second, Rounds: 2}
	slowAcceptAbort = SlowConfig{Pause: 5 * time.Second, Timeout: 3 * time.Second, Rounds: 2,
		Abort: true}
)

// PlaySlowAccept is the one scenario without a script: an ordinary server,
// ordinary clients, the kernel's own TCP on both ends. How many SYNs the
// clients retransmit, and when, is theirs to choose, so the counts come from
// the kernel.
func PlaySlowAccept(config SlowConfig) func(context.Context, *world.World,
	func(string, ...any)) (scenario.Expectation, error) {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const clients, distant = 20, 2
		var none scenario.Expectation
		abort := "0"
		if config.Abort {
			abort = "1"
		}
		if err := w.Sysctls("net.ipv4.tcp_syncookies", "1",
			"net.ipv4.tcp_abort_on_overflow", abort); err != nil {
			return none, err
		}
		before, err := w.Counters()
		if err != nil {
			return none, err
		}
		server, err := server.Start(w, server.Config{
			Comm: []byte("lab-slow"),
			Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: 1,
				Accept: true, Pause: config.Pause}},
		})
		if err != nil {
			return none, err
		}

		log("server: process %d, listen(fd, 1) on port %d, then accept() and sleep %v, for ever; tcp_abort_on_overflow=%s",
			server.PID, world.Port, config.Pause, abort)

		// A handshake over loopback is over within the SYN's softirq, so that
		// its ACK hardly ever meets a queue that was not full for its SYN, and
		// only ACKs are reset. Clients a round trip away are played by packet.
		var far []*world.Client
		if config.Abort {
			if far, err = w.Burst(ctx, world.Server4, distant); err != nil {
				return none, err
			}
			if err := scenario.WantAnswers(far, distant); err != nil {
				return none, err
			}
		}
		flood := flood{w: w,
			address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}),
				world.Port)}
		defer flood.close()
		for round := range config.Rounds {
			log("clients: %d connect at once, and wait up to %v", clients,
				config.Timeout)
			if err := flood.connect(clients); err != nil {
				return none, err
			}
			if round == 0 && len(far) > 0 {
				if err := awaitOverflow(ctx, w, before); err != nil {
					return none, err
				}
				// The last one may have got a cookie, which is never reset, and
				// there may be room for one: the first one's ACK comes last.
				for _, c := range slices.Backward(far) {
					if err := c.ACK(); err != nil {
						return none, err
					}
				}
			}
			if err := flood.wait(ctx, config.Timeout); err != nil {
				return none, err
			}
		}
		// Pull the cable: clients that hang would go on retransmitting, and the
		// server answering, while somebody compares counts.
		if err := w.Do(func() error {
			return world.SetFlags("lo", 0,
				unix.IFF_UP)
		}); err != nil {
			return none, err
		}
		moved, err := scenario.Since(w, before)
		if err != nil {
			return none, err
		}
		reset, _ := scenario.Split(far, (*world.Client).WasReset)
		connected := flood.connected + len(far) - len(reset)
		known, err := scenario.Established(w, world.Port)
		if err != nil {
			return none, err
		}
		log("clients: of %d, %d connected, %d of these only in their own eyes (the server knows nothing of them); %d timed out, %d were reset",
			len(far)+clients*config.Rounds, connected, connected-known, flood.timedOut, flood.reset+len(reset))

		overflows, resets := moved[event.CounterListenOverflows],
			moved[event.CounterEmbryonicRsts]
		if overflows == 0 || config.Abort && resets == 0 {
			return none, fmt.Errorf("the flood caused %d overflows and %d resets",
				overflows, resets)
		}
		e := scenario.Expectation{Counters: moved,
			Cookies: int(moved[event.CounterSyncookiesSent]), FromCounters: true}
		// No queue length: two CPUs that finish handshakes at the same moment
		// can both see room and put one too many into the queue.
		row := scenario.Expect{Cause: event.CauseAcceptQueueFull, Listener: world.Any4,
			PIDs: []int{server.PID}}
		row.Action, row.Count = event.ActionDropped, int(overflows-resets)
		e.Records = append(e.Records, row)
		if resets > 0 {
			// Every overflow that tcp_check_req answers with an RST, and
			// nothing else here, moves EmbryonicRsts.
			row.Stage, row.Action, row.Count = event.StageAck, event.ActionReset,
				int(resets)
			e.Records = append(e.Records, row)
		}
		e.Owners(server)
		return e, nil
	}
}

// awaitOverflow waits until the accept queue is full: on a slow machine connect()
// returns before the handshakes it began are over.
func awaitOverflow(ctx context.Context, w *world.World, before map[event.Counter]uint64) error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) &&
		ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		moved, err := scenario.Since(w, before)
		if err != nil || moved[event.CounterListenOverflows] > 0 {
			return err
		}
	}
	return errors.Join(errors.New("the accept queue did not overflow"), ctx.Err())
}

// flood is a set of ordinary non-blocking clients and what became of them.
type flood struct {
	w       *world.World
	address netip.AddrPort
	pending []int // file descriptors still connecting
	open    []int // connected

	connected, timedOut, reset int
}

// connect starts n connects at once, in the World's namespace.
func (f *flood) connect(n int) error {
	to := &unix.SockaddrInet4{Addr: f.address.Addr().As4(), Port: int(f.address.Port())}
	return f.w.Do(func() error {
		for range n {
			fd, err := unix.Socket(unix.AF_INET,
				unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return fmt.Errorf("open client socket: %w", err)
			}
			f.pending = append(f.pending, fd)
			// Closed with an RST and no lingering FIN (see listen).
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER,
				&unix.Linger{Onoff: 1}); err != nil {
				return fmt.Errorf("set linger: %w", err)
			}
			if err := unix.Connect(fd, to); err != nil &&
				!errors.Is(err, unix.EINPROGRESS) {
				return fmt.Errorf("connect: %w", err)
			}
		}
		return nil
	})
}

// wait watches all clients for the connect timeout. Those that are not connected by then
// count as timed out, but are not closed: one that is being answered at that moment would
// send an RST, and end a half-open handshake of the server's.
func (f *flood) wait(ctx context.Context, timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.poll(50 * time.Millisecond); err != nil {
			return err
		}
	}
	f.timedOut = len(f.pending)
	return nil
}

func (f *flood) poll(timeout time.Duration) error {
	var fds []unix.PollFd
	for _, fd := range f.pending {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
	}
	for _, fd := range f.open {
		fds = append(fds, unix.PollFd{Fd: int32(fd)}) // errors only
	}
	n, err := unix.Poll(fds, int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll clients: %w", err)
	}
	if n <= 0 {
		return nil
	}
	wasPending := len(f.pending)
	f.pending, f.open = nil, nil
	for i, p := range fds {
		fd := int(p.Fd)
		switch {
		case p.Revents&(unix.POLLERR|unix.POLLHUP) != 0:
			f.reset++
			if i >= wasPending {
				f.connected--
			}
			closeAll(&[]int{fd})
		case i < wasPending && p.Revents == 0:
			f.pending = append(f.pending, fd)
		default:
			if i < wasPending {
				f.connected++
			}
			f.open = append(f.open, fd)
		}
	}
	return nil
}

func (f *flood) close() {
	closeAll(&f.pending)
	closeAll(&f.open)
}

func closeAll(fds *[]int) {
	for _, fd := range *fds {
		unix.Close(fd)
	}
	*fds = nil
}
