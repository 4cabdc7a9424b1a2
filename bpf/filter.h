/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the user asked to see. Tested only once a packet is known to have died. */
#ifndef SYNSPY_FILTER_H
#define SYNSPY_FILTER_H

#include "listener.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

static __always_inline bool prefix_covers(const volatile struct prefix *prefix, const __u8 *addr)
{
	const volatile __u64 *want = (const volatile __u64 *)prefix->addr;
	const volatile __u64 *mask = (const volatile __u64 *)prefix->mask;
	const __u64 *have = (const __u64 *)addr;

	return (have[0] & mask[0]) == want[0] && (have[1] & mask[1]) == want[1];
}

static __always_inline bool wanted_port(__u16 port)
{
	for (__u32 i = 0; i < MAX_PORT_RANGES && i < filter.ports; i++)
		if (port >= filter.port[i].low && port <= filter.port[i].high)
			return true;
	return false;
}

static __always_inline bool wanted_server(const __u8 *addr)
{
	for (__u32 i = 0; i < MAX_PREFIXES && i < filter.servers; i++)
		if (prefix_covers(&filter.server[i], addr))
			return true;
	return false;
}

/* wanted_mapped tests for where a rule sends what is for a wanted port and address. */
static __always_inline bool wanted_mapped(struct packet *p, __u32 netns)
{
	const __u64 *have = (const __u64 *)p->server;

	for (__u32 i = 0; i < MAX_MAPPED && i < filter.maps; i++) {
		const volatile struct mapped *m = &filter.mapped[i];
		const volatile __u64 *want = (const volatile __u64 *)m->addr;

		if (m->port == p->server_port && (!m->netns || m->netns == netns) &&
		    (!(want[0] | want[1]) || (want[0] == have[0] && want[1] == have[1])))
			return true;
	}
	return false;
}

/* Whether any filter asks what a packet says. */
#define filter_packets (filter.ports || filter.servers || filter.clients)

/* wanted_packet tests what the packet says, and, of port and address, what its listener
 * (0: none) is bound to: TPROXY and sk_lookup programs give packets to listeners elsewhere.
 * An unknown packet fails any filter on what it cannot say. */
static __noinline bool wanted_packet(struct packet *p, __u64 sk, __u32 netns)
{
	bool match, mapped = filter.maps && p->family && wanted_mapped(p, netns);
	__u8 bound[16];

	if (!mapped && filter.ports && !(p->family && wanted_port(p->server_port)) &&
	    !(sk && wanted_port(LOAD(struct sock, sk, __sk_common.skc_num))))
		return false;
	if (!mapped && filter.servers && !(p->family && wanted_server(p->server))) {
		if (!sk)
			return false;
		bound_to(sk, bound);
		if (!wanted_server(bound))
			return false;
	}
	if (filter.clients) {
		match = false;
		for (__u32 i = 0; i < MAX_PREFIXES && i < filter.clients; i++)
			if (prefix_covers(&filter.client[i], p->client))
				match = true;
		if (!match || !p->family)
			return false;
	}
	return true;
}

/* wanted_listener tests the live set that --pid, --comm and --cgroup make. One
 * that is not judged yet passes, and so does an unknown member of a group: Go
 * judges them when their records arrive. */
static __always_inline bool wanted_listener(__u64 sk, __u8 proof)
{
	__u32 *verdict;
	__u64 id;

	if (!filter.by_owner || proof == LISTENER_GROUP)
		return true;
	id = socket_id(sk);
	verdict = bpf_map_lookup_elem(&wanted, &id);
	return !verdict || *verdict;
}

#endif
