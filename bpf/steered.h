/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Listeners that are given packets for other ports or addresses than their own: by TPROXY
 * (nf_tproxy_assign_sock), by bpf_sk_assign() and by sk_lookup programs. The kernel's lookup
 * over its table does not find them, and when a packet is freed, its socket is off it. But a
 * half-open handshake and a connection in the accept queue know both: their listener, and
 * where they were sent to. For tracepoints alone; hooks of the listen path see the socket.
 */
#ifndef SYNSPY_STEERED_H
#define SYNSPY_STEERED_H

#include "ledger.h"
#include "listener.h"
#include "lookup.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

#define MAX_LEARNT 8 /* connections of an accept queue looked at */

/* Where packets were sent to, and who was given them. */
struct steered_key {
	__u64 net_id;
	__u32 port;
	__u32 pad;
	__u8 addr[16];
};
struct steered {
	__u64 sk;
	__u64 id; /* socket_id() of it */
};
/* What is forgotten is found again with the next handshake that succeeds. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct steered_key);
	__type(value, struct steered);
} steered SEC(".maps");

static __always_inline void fill_steered_key(struct steered_key *key, __u64 net, struct packet *p)
{
	key->net_id = net_id(net);
	key->port = p->server_port;
	key->pad = 0;
	__builtin_memcpy(key->addr, p->server, sizeof(key->addr));
}

/* elsewhere: the listener would not be found where the packet was sent to. */
static __always_inline bool is_steered(__u64 sk, struct packet *p)
{
	const __u64 *want = (const __u64 *)p->server;
	__u64 bound[2] = {};
	const __u32 *words = (const __u32 *)bound;

	if (LOAD(struct sock, sk, __sk_common.skc_num) != p->server_port)
		return true;
	bound_to(sk, (__u8 *)bound);
	if (!words[3] && !bound[0] && (!words[2] || words[2] == bpf_htonl(0xffff)))
		return false; /* any address */
	return bound[0] != want[0] || bound[1] != want[1];
}

/* is_found_by_lookup reports whether a lookup would find it, at a first look: an IPv4 listener is
 * found where the handshake was sent to. */
static __always_inline bool is_found_by_lookup(__u64 sk, __u64 child)
{
	__be32 bound = LOAD(struct sock, sk, __sk_common.skc_rcv_saddr);

	return LOAD(struct sock, sk, __sk_common.skc_family) == AF_INET &&
	       LOAD(struct sock, sk, __sk_common.skc_num) ==
		       LOAD(struct sock, child, __sk_common.skc_num) &&
	       (!bound || bound == LOAD(struct sock, child, __sk_common.skc_rcv_saddr));
}

/* learn_steered takes what a handshake or a connection tells. */
static __noinline int learn_steered(__u64 sk, __u64 child)
{
	__u64 net = (__u64)LOAD(struct sock, sk, __sk_common.skc_net.net);
	struct steered value;
	struct steered_key key;
	struct steered *known;
	struct packet p;

	if (!steering && is_found_by_lookup(sk, child)) /* as nearly always */
		return 0;
	__builtin_memset(&p, 0, sizeof(p));
	parse_request(&p, (struct sock *)child);
	if (!is_steered(sk, &p)) {
		if (!steering)
			return 0;
		fill_steered_key(&key, net, &p);
		if (!bpf_map_delete_elem(&steered, &key))
			__sync_fetch_and_add(&listen_generation, 1);
		return 0;
	}
	fill_steered_key(&key, net, &p);
	value.sk = sk;
	value.id = socket_id(sk);
	known = bpf_map_lookup_elem(&steered, &key);
	if (known && known->id == value.id)
		return 0;
	bpf_map_update_elem(&steered, &key, &value, BPF_ANY);
	steering = 1;
	__sync_fetch_and_add(&listen_generation, 1); /* who was found there is forgotten */
	return 0;
}

/* learn_steered_queue looks at connections that wait for accept(). Their memory may go to others
 * meanwhile, so each must still be what it was. */
static __always_inline void learn_steered_queue(__u64 sk)
{
	__u64 net = (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net);
	struct request_sock *request;
	struct sock *child;
	__u8 state;

	request = BPF_CORE_READ((struct inet_connection_sock *)sk,
				icsk_accept_queue.rskq_accept_head);
	for (int i = 0; i < MAX_LEARNT && request; i++) {
		child = BPF_CORE_READ(request, sk);
		state = BPF_CORE_READ(child, __sk_common.skc_state);
		if (child && state && state != TCP_LISTEN && state != TCP_TIME_WAIT &&
		    (__u64)BPF_CORE_READ(child, __sk_common.skc_net.net) == net &&
		    !BPF_CORE_READ(child, sk_socket) &&
		    (__u64)BPF_CORE_READ(request, __req_common.skc_listener) == sk)
			learn_steered(sk, (__u64)child);
		request = BPF_CORE_READ(request, dl_next);
	}
}

/* find_receiver returns the listener that cpu->packet was for: who was given packets for
 * there last, or whom the kernel's lookup finds. 0: none known. */
static __noinline __u64 find_receiver(struct cpu_state *cpu, __u64 net)
{
	struct steered_key key;
	struct steered *known;
	__u64 sk;

	if (!steering)
		return find_listener(cpu, net);
	fill_steered_key(&key, net, &cpu->packet);
	known = bpf_map_lookup_elem(&steered, &key);
	if (!known)
		return find_listener(cpu, net);
	sk = known->sk;
	if (socket_id(sk) != known->id ||
	    BPF_CORE_READ((struct sock *)sk, __sk_common.skc_state) != TCP_LISTEN)
		return find_listener(cpu, net);
	return sk;
}

#endif
