/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that synspy reads, and only the fields it reads. CO-RE
 * finds their real places at load time. Shapes that differ between versions
 * are in compat.h.
 */
#ifndef SYNSPY_KERNEL_H
#define SYNSPY_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef _Bool bool;
typedef __u64 u64;
typedef __u32 u32;
typedef __u16 u16;
typedef __u8 u8;

#define true 1
#define false 0
#define NULL ((void *)0)

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_ROUTING 43
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#define TCP_ESTABLISHED 1
#define TCP_SYN_RECV 3
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12
#define SOCK_BINDPORT_LOCK 8
#define SKB_DST_PTRMASK (~1UL)
#define PACKET_OTHERHOST 3
#define RTCF_BROADCAST 0x10000000
#define RTCF_MULTICAST 0x20000000

/* Map types and flags used (include/uapi/linux/bpf.h). */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};
enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};
enum {
	BPF_RB_AVAIL_DATA = 0,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

struct ns_common {
	unsigned int inum;
};

struct linux_mib {
	unsigned long mibs[1];
};

struct ipstats_mib {
	u64 mibs[1];
};

struct netns_mib {
	struct linux_mib *net_statistics;
	struct ipstats_mib *ip_statistics;
	struct ipstats_mib *ipv6_statistics;
};

struct hlist_nulls_node {
	struct hlist_nulls_node *next;
};

struct hlist_nulls_head {
	struct hlist_nulls_node *first;
};

struct hlist_node {
	struct hlist_node *next;
	struct hlist_node **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

struct inet_listen_hashbucket {
	struct hlist_nulls_head nulls_head;
};

struct inet_hashinfo {
	unsigned int lhash2_mask;
	struct inet_listen_hashbucket *lhash2;
};

struct inet_timewait_death_row {
	struct inet_hashinfo *hashinfo;
};

struct netns_ipv4 {
	struct inet_timewait_death_row tcp_death_row;
	u8 sysctl_tcp_syncookies; /* an int in 5.11 */
	int sysctl_max_syn_backlog;
	u8 sysctl_tcp_l3mdev_accept; /* an int before 5.13; absent without VRFs */
};

struct net {
	struct ns_common ns;
	struct netns_mib mib;
	struct netns_ipv4 ipv4;
	u32 hash_mix;
	u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct proto {
	union {
		struct inet_hashinfo *hashinfo;
	} h;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_reuseport : 1;
	unsigned char skc_ipv6only : 1;
	int skc_bound_dev_if;
	struct proto *skc_prot;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	struct sock *skc_listener;
	struct hlist_nulls_node skc_nulls_node;
	int skc_incoming_cpu;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock_reuseport {
	u16 num_socks;
	struct sock *socks[0];
};

struct inode {
	unsigned long i_ino;
};

struct socket {
	struct sock *sk;
};

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};

struct mptcp_sock {
	struct sock *first;
};

struct sock {
	struct sock_common __sk_common;
	atomic_t sk_drops;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
	struct socket *sk_socket;
	u16 sk_type;
	u16 sk_protocol;
	unsigned long sk_ino;
	struct sock_cgroup_data sk_cgrp_data;
	struct sock_reuseport *sk_reuseport_cb;
	u8 sk_userlocks : 4;
};

struct request_sock_queue {
	atomic_t qlen;
	atomic_t young;
	struct request_sock *rskq_accept_head;
};

struct inet_sock {
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
	u8 icsk_syn_retries;
	void *icsk_ulp_data;
};

struct mptcp_subflow_context {
	u32 mp_join : 1;
};

struct timer_list {
	struct hlist_node entry;
	void (*function)(struct timer_list *);
};

struct request_sock {
	struct sock_common __req_common;
	struct request_sock *dl_next;
	struct sock *sk;
	struct timer_list rsk_timer;
	u8 syncookie : 1;
	u8 num_timeout : 7;
};

struct tcp_request_sock {
	u32 rcv_isn;
	bool tfo_listener;
};

struct tcp_sock {
	u32 rcv_nxt;
	struct request_sock *fastopen_rsk;
	bool is_mptcp;
	struct {
		u64 time;
	} rcvq_space;
};

struct net_device {
	possible_net_t nd_net;
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
};

struct rtable {
	unsigned int rt_flags;
	__u16 rt_type;
	int rt_iif;
};

struct rt6_info {
	__u32 rt6i_flags;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _skb_refdst;
	int skb_iif;
	__u32 secmark;
	__be16 protocol;
	__u8 pkt_type : 3;
	__u16 transport_header;
	__u16 network_header;
	__u16 mac_header;
	char cb[48];
	unsigned char *head;
	unsigned int tail; /* an offset, on 64 bits */
};

struct inet_skb_parm {
	int iif;
	__u16 flags;
};

struct inet6_skb_parm {
	int iif;
	__u16 flags;
};

/* In skb->cb, once TCP has the packet. */
struct tcp_skb_cb {
	union {
		union {
			struct inet_skb_parm h4;
			struct inet6_skb_parm h6;
		} header;
	};
};

struct iphdr {
	__u8 ihl_version;
	__u8 protocol;
	__be32 saddr;
	__be32 daddr;
};

struct bpf_array {
	void *pptrs[0];
};

struct cred {
	int unused;
};

struct file {
	void *f_op;
	void *private_data;
	const struct cred *f_cred;
};

struct fdtable {
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct {
	struct nsproxy *nsproxy;
	struct files_struct *files;
	int pid;
	int tgid;
	u64 start_boottime;
	const struct cred *cred;
	char comm[16];
	struct task_struct *group_leader;
};

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

struct seq_file {
	int unused;
};

#pragma clang attribute pop

/* Wire formats: fixed, so plain offsets serve. */
#define ICMP_HEADER 8
#define IPV4_LENGTH 2
#define IPV4_FRAGMENT 6
#define IPV4_PROTOCOL 9
#define IPV4_SADDR 12
#define IPV4_DADDR 16
#define IPV6_LENGTH 4
#define IPV6_NEXTHDR 6
#define IPV6_SADDR 8
#define IPV6_DADDR 24

struct tcp_wire {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 doff;
	__u8 flags;
	__be16 window;
};

#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10

#endif
