// SPDX-License-Identifier: Apache-2.0

// Package lab is the oracle: each scenario builds a private network namespace
// and plays TCP clients into it packet by packet, so that the number of
// handshakes the kernel drops, and why, is known before anyone looks.
//
// The clients are raw IP packets written to a TUN device. There is no second
// TCP stack that would retransmit, answer or reset on its own, and a write to
// the device runs the whole receive path before it returns (tun_get_user calls
// netif_receive_skb with bottom halves off), so nothing here sleeps and hopes.
//
// The package knows nothing about the tracer. What it expects is derived from
// what it sent, from the answers the clients saw, and (as an independent
// second opinion) from the namespace's own counters in /proc/net/netstat.
// Nothing outside the private namespace is ever changed; a cgroup and the BPF
// programs that some scenarios need are their own, and go when they end.
package lab
