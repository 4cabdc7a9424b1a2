// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playQueueAtLimit is the difference between > and >=: sk_acceptq_is_full is
// sk_ack_backlog > sk_max_ack_backlog, so a queue at its limit takes one more.
func playQueueAtLimit(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, world.Backlog)
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, world.Server4, world.Backlog); err != nil {
		return none, err
	}
	if err := w.WantQueues(world.Backlog, 0); err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, world.Server4, 1); err != nil {
		return none, fmt.Errorf("the queue is at its limit: %w", err)
	}
	if err := w.WantQueues(world.Backlog+1, 0); err != nil {
		return none, err
	}
	log("with %d handshakes queued in listen(%d), one more connected", world.Backlog,
		world.Backlog)
	dropped, err := scenario.Unanswered(ctx, w, world.Server4, 1)
	if err != nil {
		return none, err
	}
	log("and the next got no answer")

	e := foundFull(w, dropped)
	e.Records[0].Listener, e.Records[0].AcceptQueue = world.Any4, scenario.Overfull
	e.Records[0].PIDs = []int{server.PID}
	e.Owners(server)
	return e, nil
}

// playSynBacklogReserve keeps the listener's own SYN queue out of reach, so
// that what is left is the reserve: max_syn_backlog - qlen < max_syn_backlog/4
// in tcp_conn_request, and no client here is proven (tcp_peer_is_proven wants a
// round trip time from an earlier connection, and the namespace is new).
func playSynBacklogReserve(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const maxSynBacklog, backlog, total = 16, 64, 20
		const admitted = maxSynBacklog - maxSynBacklog/4 + 1
		var none scenario.Expectation
		if err := w.Sysctls("net.ipv4.tcp_syncookies", "0", "net.ipv4.tcp_max_syn_backlog",
			strconv.Itoa(maxSynBacklog)); err != nil {
			return none, err
		}
		server, err := scenario.IdleServer(w, f.Listener, backlog)
		if err != nil {
			return none, err
		}
		clients, err := w.Burst(ctx, f.Server, total)
		if err != nil {
			return none, err
		}
		requests, dropped := scenario.Split(clients, (*world.Client).Answered)
		if len(requests) != admitted {
			return none, fmt.Errorf("%d SYNs were answered with tcp_max_syn_backlog=%d, expected %d", len(requests), maxSynBacklog, admitted)
		}
		if err := scenario.WantNoReset("refused SYNs", clients); err != nil {
			return none, err
		}
		log("%d half-open handshakes left the reserve of tcp_max_syn_backlog=%d; %d SYNs got no answer", len(requests), maxSynBacklog, len(dropped))

		n := len(dropped)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseSynBacklogReserve, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: n,
				Listener: f.Listener, AcceptQueue: scenario.Queue{Len: 0,
					Limit: backlog}, SynQueue: scenario.Queue{Len: admitted,
					Limit: backlog},
				Clients: scenario.Addresses(dropped), Attempts: scenario.First(n),
				PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(
				map[event.Counter]uint64{event.CounterListenDrops: uint64(n)}),
			Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
		return e, nil
	}
}

// Bits of net.ipv4.tcp_fastopen (net/tcp.h).
const (
	fastopenServer   = 0x002 // TFO_SERVER_ENABLE
	fastopenNoCookie = 0x200 // TFO_SERVER_COOKIE_NOT_REQD
)

// playFastopenQueueFull lets clients use Fast Open without a cookie. A child
// that was made from a SYN alone counts against the queue until its handshake
// is finished (reqsk_fastopen_remove), so the first clients send no ACK.
func playFastopenQueueFull(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const queue, more, backlog = 2, 3, 16
		payload := []byte("GET /")
		var none scenario.Expectation
		if err := w.Sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_fastopen",
			strconv.Itoa(fastopenServer|fastopenNoCookie)); err != nil {
			return none, err
		}
		server, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{{
			Addr: f.Listener, Backlog: backlog,
			Options: []server.SocketOption{server.IntOption(unix.IPPROTO_TCP,
				unix.TCP_FASTOPEN, queue)},
		}}})
		if err != nil {
			return none, err
		}
		clients := w.Clients(f.Server, queue+more)
		err = scenario.Each(ctx, w, clients, func(c *world.Client) error {
			syn := c.SYNSegment()
			syn.Payload = payload
			return c.SendSYN(c.Frame(syn))
		})
		if err != nil {
			return none, err
		}
		opened, ordinary := clients[:queue], clients[queue:]
		for _, c := range opened {
			if c.Answered() || !acknowledgesData(c, len(payload)) {
				return none, fmt.Errorf("client %s: its SYN-ACK does not acknowledge the data of its SYN", c.Local)
			}
		}
		if err := scenario.WantAnswers(ordinary,
			more); err != nil { // acknowledging the SYN alone
			return none, err
		}
		// The children wait for accept() and are half-open at once.
		if err := w.WantQueues(queue, queue+more); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, ordinary, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(queue+more, queue); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("Fast Open", clients); err != nil {
			return none, err
		}
		log("%d SYNs with data were accepted at once, %d got an ordinary SYN-ACK and connected", queue, more)

		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseFastopenQueueFull, Stage: event.StageSyn,
				Action: event.ActionIgnored, Count: more,
				Listener: f.Listener, Clients: scenario.Addresses(ordinary),
				PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterTCPFastOpenListenOverflow: more}),
			Syns: w.Syns(),
		}
		e.Owners(server)
		return e, nil
	}
}

// acknowledgesData reports whether a SYN-ACK arrived that acknowledges n bytes
// besides the SYN: a Fast Open child answers so.
func acknowledgesData(c *world.Client, n int) bool {
	c.Drain()
	for _, s := range c.Others {
		if s.Flags == world.FlagSYN|world.FlagACK && s.ACK == c.ISN+1+uint32(n) {
			return true
		}
	}
	return false
}

// playBadSyn plays the two refusals of tcp_rcv_state_process and
// tcp_v4/v6_conn_request. Only the second counts: SYN with FIN moves no counter
// of the closed list. A TUN device has no link layer, so that packets to
// broadcast and multicast addresses pass as packets to this host
// (tcp_v4_rcv: pkt_type) and get as far as the listener.
func playBadSyn(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const withFIN = 3
		nobodys := []string{"10.99.0.255", "255.255.255.255",
			"224.0.0.1"} // subnet, limited, all hosts
		if f.IPv6() {
			nobodys = []string{"ff02::1", "ff02::1"} // all nodes; IPv6 has no broadcast
		}
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := scenario.IdleServer(w, f.Listener, world.Backlog)
		if err != nil {
			return none, err
		}
		clients := w.Clients(f.Server, withFIN)
		err = scenario.Each(ctx, w, clients, func(c *world.Client) error {
			syn := c.SYNSegment()
			syn.Flags |= world.FlagFIN
			return c.SendSYN(c.Frame(syn))
		})
		if err != nil {
			return none, err
		}
		for _, to := range nobodys {
			local, isn := w.NextClient(f.Server)
			c := w.ClientFrom(local,
				netip.AddrPortFrom(netip.MustParseAddr(to), world.Port), isn)
			if err := c.SYN(); err != nil {
				return none, err
			}
			clients = append(clients, c)
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(clients, 0); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("bad SYNs", clients); err != nil {
			return none, err
		}
		log("%d SYNs with FIN and %d to broadcast or multicast addresses got no answer",
			withFIN, len(nobodys))

		n := len(clients)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseBadSyn, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: n,
				Listener: f.Listener, AcceptQueue: scenario.Queue{Len: 0,
					Limit: world.Backlog}, Clients: scenario.Addresses(clients), Attempts: scenario.First(n), PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterListenDrops: uint64(len(nobodys))}),
			Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
		return e, nil
	}
}

// timestamps is the option with its padding.
func timestamps(value, echo uint32) []byte {
	b := []byte{world.OptionNOP, world.OptionNOP, world.OptionTimestamps, 10}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, value), echo)
}
