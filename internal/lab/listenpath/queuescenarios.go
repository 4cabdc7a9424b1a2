// SPDX-License-Identifier: Apache-2.0

// Package listenpath holds the scenarios in which a packet dies after it reached its listener.
package listenpath

import "github.com/synspy/synspy/internal/lab/scenario"

// Queues are those of full queues, and of what only looks like one.
func Queues() []scenario.Scenario {
	return []scenario.Scenario{
		{
			Name: "accept-queue-full-syn", Title: "SYN into a full accept queue",
			Explain: "listen(fd, 3) and nobody accepts: 4 handshakes fill the queue, 5 further SYNs are dropped unanswered.",
			Play:    playAcceptQueueFullSyn,
		},
		{
			Name:    "accept-queue-full-ack",
			Title:   "handshake ACK into a full accept queue",
			Explain: "10 clients get a SYN-ACK from listen(fd, 3), some of them a SYN cookie; 4 of their ACKs fit, 6 are dropped although the client is connected by then. 5 further SYNs are dropped too.",
			Play:    playAcceptQueueFullAck,
		},
		{
			Name:    "accept-queue-full-ack-reset",
			Title:   "the same with tcp_abort_on_overflow=1",
			Explain: "Half-open handshakes whose ACK meets a full accept queue are reset; the client sees the RST just after it connected.",
			Play:    playAcceptQueueFullAckReset,
		},
		{
			Name:    "accept-queue-full-cookie-ack",
			Title:   "SYN cookie ACK into a full accept queue",
			Explain: "With tcp_syncookies=2 every SYN-ACK is a cookie; 6 of 10 ACKs are dropped without an RST, tcp_abort_on_overflow=1 notwithstanding, and the server never retransmits.",
			Play:    playAcceptQueueFullCookieAck,
		},
		{
			Name:    "accept-queue-full-ipv6",
			Title:   "handshake ACK into a full accept queue, IPv6",
			Explain: "accept-queue-full-ack with IPv6 clients.",
			Play:    playAcceptQueueFullIPv6,
		},
		{
			Name:    "accept-queue-full-v4mapped",
			Title:   "IPv4 clients of an IPv6 listener",
			Explain: "accept-queue-full-ack with IPv4 clients of a dual-stack [::] listener.",
			Play:    playAcceptQueueFullV4Mapped,
		},
		{
			Name: "syn-queue-full", Title: "SYN queue full, cookies off",
			Explain: "Half-open handshakes fill the SYN queue of listen(fd, 8); with tcp_syncookies=0 all further SYNs are dropped.",
			Play:    playSynQueueFull,
		},
		{
			Name: "cookie-answered-syn", Title: "SYN queue full, cookies on: no drop",
			Explain: "The SYN queue of listen(fd, 8) is full, but SYN cookies answer every further SYN: nothing is dropped, and a tool that only looks at the queue is wrong.",
			Play:    playCookieAnsweredSyn,
		},
		{
			Name: "retransmit", Title: "one client, four dropped SYNs",
			Explain: "The same SYN is retransmitted into a full accept queue: four dropped packets, attempts 1 to 4, one handshake.",
			Play:    playRetransmit,
		},
		{
			Name:    "syn-retransmit-answered",
			Title:   "SYN retransmitted after its answer: no drop",
			Explain: "A SYN that meets its own half-open handshake is answered again or rate-limited; nothing is dropped.",
			Play:    playSynRetransmitAnswered,
		},
		{
			Name: "reuseport-one-full", Title: "one SO_REUSEPORT member full",
			Explain: "Two processes share a port by SO_REUSEPORT; one accepts, the other is stuck and its queue full. Only clients that hash to the stuck one are dropped.",
			Play:    playReuseportOneFull,
		},
		{
			Name:    "reuseport-bound",
			Title:   "a listener bound to the device gets nothing",
			Explain: "Two processes listen on a port with SO_REUSEPORT, the first bound to the device, so in groups of their own. The kernel asks who listened last first, and gives all SYNs to that group, though the other fits better; its queue is full.",
			Play:    playReuseportBound,
		},
		{
			Name: "vrf-bound", Title: "two listeners, one in a VRF",
			Explain: "The device is part of a VRF; one process listens on it, another on the same port outside. SYNs that come through the VRF are for the first alone, whose queue is full.",
			Play:    playVRF,
		},
		{
			Name: "steered", Title: "a program gives SYNs to another listener",
			Explain: "An sk_lookup program gives the SYNs for one listener's port to another one, whose queue is full. Where the kernel does not tell whom it dropped them for, nobody is named: not the one whose port it is.",
			Play:    playSteered,
		},
		{
			Name: "two-ports", Title: "two listeners overflow",
			Explain: "Two ports of one namespace overflow, 5 and 3 SYNs are dropped; with a filter on one port the other's are counted as filtered. The process name is hostile to terminals.",
			Play:    playTwoPorts,
		},
		{
			Name:    "other-namespace",
			Title:   "another namespace busy on the same address",
			Explain: "A second namespace with the same addresses and port serves healthy traffic meanwhile; it contributes nothing.",
			Play:    PlayOtherNamespace,
		},
		{
			Name: "slow-accept", Title: "a server that accepts too slowly",
			Explain: "An ordinary server with listen(fd, 1) sleeps 5 s after each accept() while 20 ordinary clients at a time connect over loopback: most time out, or believe they are connected while the server knows nothing of them.",
			Play:    PlaySlowAccept(slowAccept),
		},
		{
			Name: "slow-accept-abort", Title: "the same with tcp_abort_on_overflow=1",
			Explain: "slow-accept with tcp_abort_on_overflow=1 and 2 distant clients, whose ACK arrives when the queue is full: they are reset, the near ones mostly hang or time out all the same.",
			Play:    PlaySlowAccept(slowAcceptAbort),
		},
	}
}
