// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// askedAgain is when whoever looks will have asked once more who holds a listener
// that drops: it must still be known then, and the next time.
const askedAgain = 1500 * time.Millisecond

// playMPTCPListener fills the accept queue of an MPTCP socket. Packets meet the TCP
// socket below it, which no process holds: the file is the MPTCP socket's, with the
// same inode (mptcp_subflow_create_socket). Whether a client offers MPTCP makes no
// difference to either queue.
func playMPTCPListener(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const backlog, lost, refused = 8, 2, 3
		var none scenario.Expectation
		if err := w.Sysctls("net.ipv4.tcp_syncookies", "1",
			"net.ipv4.tcp_abort_on_overflow", "0"); err != nil {
			return none, err
		}
		if err := enableMPTCP(w, f); err != nil {
			return none, err
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}
		server, err := server.Start(w,
			server.Config{Listeners: []server.ListenConfig{{Addr: f.Listener,
				Backlog: backlog, MPTCP: true}}})
		if err != nil {
			return none, err
		}
		for _, c := range mptcpClients(w, f, backlog) {
			if err := errors.Join(c.SYN(), c.WaitSYNACK(ctx), c.ACK()); err != nil {
				return none, err
			}
		}
		if err := w.WantMoved(before,
			world.Stats{"MPTcpExtMPCapableACKRX": backlog / 2}); err != nil {
			return none, err
		}
		half := mptcpClients(w, f, 1+lost) // there is room for one
		if err := eachMPTCP(ctx, w, half, mptcpClient.SYN); err != nil {
			return none, err
		}
		if err := eachMPTCP(ctx, w, half, mptcpClient.ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(backlog+1, lost); err != nil {
			return none, err
		}
		acks := plain(half[1:])
		if err := scenario.WantNoReset("ACKs into a full accept queue", acks); err != nil {
			return none, err
		}
		var syns []*world.Client
		for _, pause := range []time.Duration{0, askedAgain, askedAgain} {
			time.Sleep(pause)
			clients := mptcpClients(w, f, refused)
			if err := eachMPTCP(ctx, w, clients, mptcpClient.SYN); err != nil {
				return none, err
			}
			syns = append(syns, plain(clients)...)
		}
		if err := scenario.WantAction(event.ActionDropped, syns...); err != nil {
			return none, err
		}
		log("%d clients filled the accept queue of an MPTCP listener; %d ACKs and %d SYNs, of clients with and without MPTCP, got no answer", backlog+1, lost, len(syns))

		e := scenario.Expectation{Syns: w.Syns(), Handshakes: lost + len(syns)}
		for _, r := range []struct {
			stage   event.Stage
			clients []*world.Client
		}{{event.StageAck, acks}, {event.StageSyn, syns}} {
			e.Records = append(e.Records, scenario.Expect{
				Cause: event.CauseAcceptQueueFull, Stage: r.stage,
				Action: event.ActionDropped, Count: len(r.clients),
				Listener: f.Listener, AcceptQueue: scenario.Queue{Len: backlog + 1,
					Limit: backlog},
				Clients:  scenario.Addresses(r.clients),
				Attempts: scenario.First(len(r.clients)),
				PIDs:     []int{server.PID},
			})
		}
		e.Counters = scenario.Counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(e.Handshakes),
			event.CounterListenDrops:     uint64(e.Handshakes),
		})
		e.Owners(server)
		return e, nil
	}
}

// enableMPTCP wraps ErrCannotHold where the kernel has no MPTCP for the family.
func enableMPTCP(w *world.World, f world.Family) error {
	domain := unix.AF_INET
	if f.IPv6() {
		domain = unix.AF_INET6
	}
	return w.Do(func() error {
		err := world.WriteSysctl("net.mptcp.enabled", "1")
		if err == nil {
			var fd int
			if fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC,
				unix.IPPROTO_MPTCP); err == nil {
				return unix.Close(fd)
			}
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return fmt.Errorf("%w: it needs MPTCP (CONFIG_MPTCP, and CONFIG_MPTCP_IPV6 for IPv6): %w", world.ErrCannotHold, err)
		}
		return err
	})
}

// optionMPTCP is the TCP option's kind; the scenario needs no other subtype than
// MP_CAPABLE, number 0 (RFC 8684).
const optionMPTCP = 30

const (
	mptcpVersion = 1
	mptcpHMAC    = 1 // flag H: HMAC-SHA256, the only choice
)

// mptcpClient is a Client that may offer MPTCP.
type mptcpClient struct {
	*world.Client
	offers bool
}

// mptcpClients makes clients of which every second one offers MPTCP.
func mptcpClients(w *world.World, f world.Family, n int) []mptcpClient {
	list := make([]mptcpClient, n)
	for i, c := range w.Clients(f.Server, n) {
		list[i] = mptcpClient{c, i%2 == 1}
	}
	return list
}

func plain(clients []mptcpClient) []*world.Client {
	list := make([]*world.Client, len(clients))
	for i, c := range clients {
		list[i] = c.Client
	}
	return list
}

func eachMPTCP(ctx context.Context, w *world.World, clients []mptcpClient,
	f func(mptcpClient) error) error {
	for _, c := range clients {
		if err := f(c); err != nil {
			return err
		}
	}
	return w.Barrier(ctx)
}

func (c mptcpClient) SYN() error {
	syn := c.SYNSegment()
	if c.offers {
		syn.Options = append(syn.Options, optionMPTCP, 4, mptcpVersion, mptcpHMAC)
	}
	return c.SendSYN(c.Frame(syn))
}

// ACK echoes the key of the SYN-ACK behind one of its own, which makes the
// connection an MPTCP one.
func (c mptcpClient) ACK() error {
	ack, err := c.Next(world.FlagACK, nil)
	if err != nil {
		return err
	}
	if c.offers {
		answer, ok := c.SYNAck.Option(optionMPTCP)
		if !ok || len(answer) != 10 {
			return fmt.Errorf("client %s offered MPTCP, its SYN-ACK answers with %v",
				c.Local, answer)
		}
		ack.Options = slices.Concat(ack.Options,
			[]byte{optionMPTCP, 20, mptcpVersion, mptcpHMAC},
			[]byte("labs-key"), answer[2:])
	}
	return c.Send(ack)
}
