// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// slowConfig is what tests shorten.
type slowConfig struct {
	pause   time.Duration // the server's, after each accept()
	timeout time.Duration // the clients', for connect()
	rounds  int           // of clients
	abort   bool
}

var (
	slowAccept      = slowConfig{pause: 5 * time.Second, timeout: 3 * time.Second, rounds: 2}
	slowAcceptAbort = slowConfig{pause: 5 * time.Second, timeout: 3 * time.Second, rounds: 2, abort: true}
)

// playSlowAccept is the one scenario without a script: an ordinary server,
// ordinary clients, the kernel's own TCP on both ends. How many SYNs the
// clients retransmit, and when, is theirs to choose, so the counts come from
// the kernel.
func playSlowAccept(config slowConfig) func(context.Context, *World, func(string, ...any)) (Expectation, error) {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const clients, distant = 20, 2
		var none Expectation
		abort := "0"
		if config.abort {
			abort = "1"
		}
		if err := w.sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_abort_on_overflow", abort); err != nil {
			return none, err
		}
		before, err := w.Counters()
		if err != nil {
			return none, err
		}
		server, err := w.StartServer(ServerConfig{
			Comm:      []byte("lab-slow"),
			Listeners: []ListenConfig{{Addr: any4, Backlog: 1, Accept: true, Pause: config.pause}},
		})
		if err != nil {
			return none, err
		}

		log("server: process %d, listen(fd, 1) on port %d, then accept() and sleep %v, for ever; tcp_abort_on_overflow=%s",
			server.PID, port, config.pause, abort)

		// A handshake over loopback is over within the SYN's softirq, so that
		// its ACK hardly ever meets a queue that was not full for its SYN, and
		// only ACKs are reset. Clients a round trip away are played by packet.
		var far []*Client
		if config.abort {
			if far, err = w.Burst(ctx, server4, distant); err != nil {
				return none, err
			}
			if err := wantAnswers(far, distant); err != nil {
				return none, err
			}
		}
		flood := flood{w: w, address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
		defer flood.close()
		for round := range config.rounds {
			log("clients: %d connect at once, and wait up to %v", clients, config.timeout)
			if err := flood.connect(clients); err != nil {
				return none, err
			}
			if round == 0 && len(far) > 0 {
				if err := w.awaitOverflow(ctx, before); err != nil {
					return none, err
				}
				// The last one may have got a cookie, which is never reset, and there may be
				// room for one: the first one's ACK comes last.
				for _, c := range slices.Backward(far) {
					if err := c.ACK(); err != nil {
						return none, err
					}
				}
			}
			if err := flood.wait(ctx, config.timeout); err != nil {
				return none, err
			}
		}
		// Pull the cable: clients that hang would go on retransmitting, and the
		// server answering, while somebody compares counts.
		if err := w.Do(func() error { return setFlags("lo", 0, unix.IFF_UP) }); err != nil {
			return none, err
		}
		moved, err := w.since(before)
		if err != nil {
			return none, err
		}
		reset, _ := split(far, (*Client).WasReset)
		connected := flood.connected + len(far) - len(reset)
		known, err := w.established(port)
		if err != nil {
			return none, err
		}
		log("clients: of %d, %d connected, %d of these only in their own eyes (the server knows nothing of them); %d timed out, %d were reset",
			len(far)+clients*config.rounds, connected, connected-known, flood.timedOut, flood.reset+len(reset))

		overflows, resets := moved[event.CounterListenOverflows], moved[event.CounterEmbryonicRsts]
		if overflows == 0 || config.abort && resets == 0 {
			return none, fmt.Errorf("the flood caused %d overflows and %d resets", overflows, resets)
		}
		e := Expectation{Counters: moved, Cookies: int(moved[event.CounterSyncookiesSent]), FromCounters: true}
		// No queue length: two CPUs that finish handshakes at the same moment
		// can both see room and put one too many into the queue.
		row := Expect{Cause: event.CauseAcceptQueueFull, Listener: any4, PIDs: []int{server.PID}}
		row.Action, row.Count = event.ActionDropped, int(overflows-resets)
		e.Records = append(e.Records, row)
		if resets > 0 {
			// Every overflow that tcp_check_req answers with an RST, and
			// nothing else here, moves EmbryonicRsts.
			row.Stage, row.Action, row.Count = event.StageAck, event.ActionReset, int(resets)
			e.Records = append(e.Records, row)
		}
		e.owners(server)
		return e, nil
	}
}

// awaitOverflow waits until the accept queue is full: on a slow machine connect()
// returns before the handshakes it began are over.
func (w *World) awaitOverflow(ctx context.Context, before map[event.Counter]uint64) error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		moved, err := w.since(before)
		if err != nil || moved[event.CounterListenOverflows] > 0 {
			return err
		}
	}
	return errors.Join(errors.New("the accept queue did not overflow"), ctx.Err())
}

// established counts the connections the server's side has, accepted or not.
func (w *World) established(port uint16) (n int, err error) {
	var table []byte
	err = w.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			part, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil && !os.IsNotExist(err) { // no IPv6
				return err
			}
			table = append(table, part...)
		}
		return nil
	})
	local := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(table)) {
		// number, local and remote address, state (01 is TCP_ESTABLISHED)
		fields := strings.Fields(line)
		if len(fields) > 3 && strings.HasSuffix(fields[1], local) && fields[3] == "01" {
			n++
		}
	}
	return n, err
}

// flood is a set of ordinary non-blocking clients and what became of them.
type flood struct {
	w       *World
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
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return fmt.Errorf("open client socket: %w", err)
			}
			f.pending = append(f.pending, fd)
			// Closed with an RST and no lingering FIN (see listen).
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				return fmt.Errorf("set linger: %w", err)
			}
			if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
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
