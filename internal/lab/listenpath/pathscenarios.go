// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// Path are the causes of the listen path beyond full queues: what can
// happen to a SYN or an ACK that did reach its listener.
func Path() []scenario.Scenario {
	list := []scenario.Scenario{{
		Name: "queue-at-limit", Title: "accept queue exactly at its limit: no drop",
		Explain: "listen(fd, 3) and 3 handshakes queued: the limit is reached, and one more SYN and its ACK still fit. Only the SYN after that is dropped.",
		Play:    playQueueAtLimit,
	}}
	for _, s := range []struct {
		name, title, explain string
		played               func(world.Family) scenario.PlayFunc
	}{
		{
			"syn-backlog-reserve", "last quarter of tcp_max_syn_backlog, cookies off",
			"With tcp_syncookies=0 and tcp_max_syn_backlog=16, 13 of 20 SYNs are answered; the rest is kept for clients that connected before, although listen(fd, 64) has room.",
			playSynBacklogReserve,
		},
		{
			"no-route-back", "no route to answer the client",
			"3 SYNs come from addresses that the namespace has no route to; 2 more clients lose their route between SYN and ACK, and connect when it is back.",
			playNoRouteBack,
		},
		{
			"cookie-invalid", "ACK that is no valid SYN cookie",
			"With tcp_syncookies=2, 3 clients acknowledge their cookie wrongly and 2 strangers acknowledge what was never sent: 5 resets. The 3 then acknowledge rightly and connect.",
			playCookieInvalid,
		},
		{
			"bad-handshake-ack-reset", "packets that fit no handshake and are reset",
			"Cookies off: wrong ACK numbers, ACKs that no handshake waits for, and another SYN inside the window are answered by an RST. Only the last ends its handshake.",
			playBadHandshakeAckReset,
		},
		{
			"bad-handshake-ack",
			"packets that fit no handshake and are dropped quietly",
			"Old timestamps, echoes of a timestamp never sent, sequence numbers outside the window, and RSTs, for half-open handshakes.",
			playBadHandshakeAck,
		},
		{
			"defer-accept", "bare ACKs under TCP_DEFER_ACCEPT: ignored",
			"4 clients send the bare ACK, one of them twice, and nothing happens, as the server asked for it; their data then connects them.",
			playDeferAccept,
		},
		{
			"fastopen-queue-full", "Fast Open queue full: ignored",
			"TCP_FASTOPEN with a queue of 2: two SYNs with data are accepted at once, 3 more get an ordinary SYN-ACK and connect the ordinary way.",
			playFastopenQueueFull,
		},
		{
			"bad-syn", "SYN with FIN, SYN to broadcast or multicast",
			"A listener on every address gets SYNs that also carry FIN, and SYNs to addresses that are nobody's own; none is answered.",
			playBadSyn,
		},
		{
			"auth-failed", "TCP MD5 signature missing, unexpected or wrong",
			"The listener has a TCP MD5 key for some clients. Their SYNs without a signature or with a wrong one, and other clients' SYNs and ACKs with one, are dropped.",
			playAuthFailed,
		},
		{
			"icmp-error", "ICMP error in answer to a SYN-ACK",
			"ICMP errors that are final for the address family end 3 half-open handshakes; a soft error and one with a wrong sequence number do not.",
			playICMPError,
		},
		{
			"listener-closed", "listener closed with clients waiting",
			"One server closes its listener, another exits: the 3 queued clients of each are reset at once, the 2 half-open ones when their ACK finds nobody.",
			playListenerClosed,
		},
		{
			"listener-closed-timer",
			"listener closed, half-open handshakes left to their timer",
			"4 half-open handshakes outlive their listener; after a second their timer removes them and sends nothing.",
			playListenerClosedTimer,
		},
		{
			"handshake-expired", "SYN-ACKs that nobody answers",
			"tcp_synack_retries=1: the SYN-ACKs of 4 clients are sent twice, then their half-open handshakes expire, after 3 s or a little more.",
			playHandshakeExpired,
		},
		{
			"listener-closed-reuseport", "one of two SO_REUSEPORT listeners closed",
			"tcp_migrate_req=0: a listener closes while another one shares its port. Its 3 queued clients are reset at once; the ACKs of the 2 half-open ones find the other listener, which resets them.",
			playReuseportClosed,
		},
		{
			"reuseport-migration", "listener closed, its clients migrate: no drop",
			"tcp_migrate_req=1: of two SO_REUSEPORT listeners one closes. The other takes over its 3 queued and 4 half-open clients, by their ACK or by their timer.",
			playReuseportMigration,
		},
		{
			"reuseport-migration-full", "clients migrate into a full accept queue",
			"tcp_migrate_req=1: a listener closes with 2 half-open clients. Their ACKs are handed to the other SO_REUSEPORT listener, whose accept queue is full.",
			playReuseportMigrationFull,
		},
		{
			"mptcp-listener", "accept queue of an MPTCP listener full",
			"An MPTCP socket listens and nobody accepts; every second client offers MPTCP. 2 ACKs are dropped, and 3 SYNs three times within 3 s, all of the same process.",
			playMPTCPListener,
		},
	} {
		list = append(list, scenario.Twins(s.name, s.title, s.explain, s.played)...)
	}
	return list
}
