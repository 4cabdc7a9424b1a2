// SPDX-License-Identifier: Apache-2.0

package event

// FindingID names a finding of diagnose. Names are fixed by the record schema.
type FindingID string

// The findings, in the order of the table below.
const (
	FindingProcessStopped        FindingID = "process_stopped"
	FindingCPUThrottled          FindingID = "cpu_throttled"
	FindingCPUStarved            FindingID = "cpu_starved"
	FindingNoAcceptor            FindingID = "no_acceptor"
	FindingAcceptLoopBlocked     FindingID = "accept_loop_blocked"
	FindingAcceptLoopBusy        FindingID = "accept_loop_busy"
	FindingAcceptRateExceeded    FindingID = "accept_rate_exceeded"
	FindingConnectionBurst       FindingID = "connection_burst"
	FindingBacklogTooSmall       FindingID = "backlog_too_small"
	FindingBacklogCapped         FindingID = "backlog_capped"
	FindingReuseportImbalance    FindingID = "reuseport_imbalance"
	FindingSynQueuePressure      FindingID = "syn_queue_pressure"
	FindingSyncookiesDisabled    FindingID = "syncookies_disabled"
	FindingAbortOnOverflow       FindingID = "abort_on_overflow"
	FindingReturnPathLost        FindingID = "return_path_lost"
	FindingClientGaveUp          FindingID = "client_gave_up"
	FindingDroppedBeforeListener FindingID = "dropped_before_listener"
	FindingNoListener            FindingID = "no_listener"
	FindingListenerRestarted     FindingID = "listener_restarted"
	FindingOtherDrops            FindingID = "other_drops" // added to the fixed ones: what none of them covers
	FindingNoSynArrived          FindingID = "no_syn_arrived"
	FindingHealthy               FindingID = "healthy"
)

// FindingInfo is what is said about a finding anywhere: the reports, the
// completion and docs/playbook.md all read this table.
type FindingInfo struct {
	ID     FindingID
	Title  string   // a few words, with the findings' own title where nothing more exact is known
	Means  string   // one sentence
	Shown  string   // what has to be seen for it
	Do     []string // what to do, in the order that works
	Owner  string   // whose it is, unless the evidence says otherwise
	Causes []Cause  // the records' causes it explains, empty where it needs none
}

var findings = []FindingInfo{
	{
		ID: FindingProcessStopped, Title: "the accepting process is stopped",
		Means: "the threads that accept were stopped by a signal, held by a debugger, or frozen with their cgroup while the queue filled",
		Shown: "thread state T or t, or a frozen cgroup (cgroup.freeze; freezer.state of version 1), in the samples taken while the accept queue was full",
		Do: []string{
			"find out who stopped it: a debugger, a SIGSTOP, a paused container, a snapshot",
			"let it go on: kill -CONT PID, detach the debugger, or thaw the cgroup: 0 into cgroup.freeze, THAWED into freezer.state of version 1",
		},
		Owner: "platform", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingCPUThrottled, Title: "the CPU quota stops the accepting process",
		Means: "the cgroup of the accepting process had used up its CPU quota while the accept queue was full, so nobody could accept",
		Shown: "cpu.stat's nr_throttled and throttled_usec grew in the same moments as the drops",
		Do: []string{
			"raise or remove the CPU limit: cpu.max of the cgroup (cpu.cfs_quota_us of version 1), CPUQuota= of the unit, --cpus of docker update, resources.limits.cpu of the pod",
			"use fewer threads than the quota has CPUs, so that it is not used up early in each period",
			"allow a burst: cpu.max.burst (cpu.cfs_burst_us of version 1)",
		},
		Owner: "platform", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingCPUStarved, Title: "the accepting threads wait for a CPU",
		Means: "the accepting threads were ready to run and other tasks had the CPUs",
		Shown: "run delay of the accepting threads while the accept queue was full, without CPU throttling",
		Do: []string{
			"take the other load off these CPUs, or give the service a higher weight: cpu.weight (cpu.shares of version 1), CPUWeight=, resources.requests.cpu",
			"check CPU affinity: taskset -pc PID, and cpuset.cpus of the cgroup",
		},
		Owner: "node", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingNoAcceptor, Title: "nobody calls accept()",
		Means: "connections were waiting and no process called accept() on this listener in the whole window, or not for seconds while idle in poll",
		Shown: "no accept in the window while the queue held connections, and no thread seen doing anything that explains it",
		Do: []string{
			"look at why the process that holds the listener does not accept: still starting, shutting down, deadlocked, or at its connection limit",
			"close listeners that nobody serves: a parent that passed its socket on still holds it",
		},
		Owner: "application", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingAcceptLoopBlocked, Title: "the accept loop is blocked",
		Means: "the accepting threads slept in something other than accept or poll while connections waited in the queue, or accept() failed for want of descriptors or memory",
		Shown: "samples of the accepting threads asleep in another call while the accept queue was full, and how long no accept came; errors of accept(), and descriptors in use against their limit",
		Do: []string{
			"take the call that blocks off the accepting thread: hand the connection on, set a timeout on it, or make it asynchronous",
			"more workers only help while not all of them are blocked by the same thing",
			"no backlog is large enough for a loop that stands still",
			"where accept() fails with EMFILE, raise RLIMIT_NOFILE (LimitNOFILE= of the unit, ulimit -n), or keep fewer descriptors open",
		},
		Owner: "application", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingAcceptLoopBusy, Title: "the accept loop computes",
		Means: "the accepting threads were on a CPU doing other work while connections waited in the queue, or calling accept() again and again, which failed",
		Shown: "on-CPU samples of the accepting threads outside accept while the accept queue was full",
		Do: []string{
			"move the work off the accepting thread: TLS handshakes, parsing, compression, garbage collection",
			"add workers, up to the number of CPUs",
		},
		Owner: "application", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID:    FindingAcceptRateExceeded,
		Title: "connections arrive faster than they are accepted",
		Means: "the process accepts steadily, and for most of the window more connections arrived than it accepted",
		Shown: "both rates, and no standstill of the accept loop",
		Do: []string{
			"make each accept cheaper: accept in a loop until EAGAIN, hand work on",
			"add workers or replicas: the replay says how many would have been enough",
			"let clients keep connections open, so that fewer arrive",
		},
		Owner: "application", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingConnectionBurst, Title: "a burst of connections",
		Means: "many times more connections arrived at once than before and after: a reconnect storm, a rollout, a scheduled job",
		Shown: "the highest arrival rate against the usual one in the rest of the window",
		Do: []string{
			"let clients reconnect with a random delay and exponential backoff",
			"make the accept queue hold the burst: listen() backlog and net.core.somaxconn together",
		},
		Owner: "client", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingBacklogTooSmall, Title: "the backlog is too small",
		Means: "the process accepts well enough, but the queue's limit is smaller than the bursts that arrive",
		Shown: "the replay of this window: with a larger limit nothing is dropped",
		Do: []string{
			"raise the backlog argument of listen() to the value the replay names; it is a setting in most servers",
			"raise net.core.somaxconn where it is less than that",
		},
		Owner: "application", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingBacklogCapped, Title: "the backlog is capped",
		Means: "listen() asked for more than net.core.somaxconn allows, or somaxconn allows more than listen() asks for",
		Shown: "the queue's limit equals net.core.somaxconn and the replay needs more; proven where the socket was seen to open, and so what listen() asked for",
		Do: []string{
			"set net.core.somaxconn in the listener's network namespace: /etc/sysctl.d on a node, securityContext.sysctls in a pod",
			"restart the server or make it call listen() again: the limit is taken at listen()",
		},
		Owner: "node", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID:    FindingReuseportImbalance,
		Title: "some sockets of a SO_REUSEPORT group are full, others not",
		Means: "connections are spread by hash over the group's sockets, and those of a slow member are dropped while others idle",
		Shown: "the members' queues and drops, side by side",
		Do: []string{
			"fix the member that does not accept: the finding names it",
			"close listeners of processes that are shutting down; net.ipv4.tcp_migrate_req=1 moves what waits in them",
			"spread by load with a BPF program (SO_ATTACH_REUSEPORT_EBPF), or share one socket",
		},
		Owner: "application", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingSynQueuePressure, Title: "the SYN queue is full of half-open handshakes",
		Means: "SYNs arrived whose handshakes were never finished, until the SYN queue was full and SYN cookies were sent",
		Shown: "SYN cookies sent, the SYN queue at its limit, and the clients it came from",
		Do: []string{
			"leave SYN cookies on: they keep the service reachable",
			"find the clients: many addresses that never answer are spoofed, to be filtered upstream; real clients that never answer have lost the return path",
			"size the SYN queue with the backlog: listen(), net.core.somaxconn, and net.ipv4.tcp_max_syn_backlog without cookies",
		},
		Owner: "network", Causes: []Cause{CauseSynQueueFull, CauseSynBacklogReserve},
	},
	{
		ID: FindingSyncookiesDisabled, Title: "SYN cookies are off",
		Means: "SYNs were dropped for want of room in the SYN queue, which SYN cookies would have answered",
		Shown: "net.ipv4.tcp_syncookies is 0 and SYNs died of a full SYN queue or its reserve",
		Do: []string{
			"set net.ipv4.tcp_syncookies=1 in the listener's network namespace",
			"or raise the listen() backlog, net.core.somaxconn and net.ipv4.tcp_max_syn_backlog together",
		},
		Owner: "node", Causes: []Cause{CauseSynQueueFull, CauseSynBacklogReserve},
	},
	{
		ID: FindingAbortOnOverflow, Title: "overflow is answered with resets",
		Means: "net.ipv4.tcp_abort_on_overflow is 1, so clients were reset whose handshakes a later retry might have finished",
		Shown: "the sysctl, and handshake ACKs reset by the full accept queue",
		Do: []string{
			"set net.ipv4.tcp_abort_on_overflow=0, unless clients fail over faster by a reset than by a timeout",
			"and empty the accept queue: see the other findings",
		},
		Owner: "node", Causes: []Cause{CauseAcceptQueueFull},
	},
	{
		ID: FindingReturnPathLost, Title: "SYN-ACKs do not reach the clients",
		Means: "SYN-ACKs went unanswered: this host dropped them on their way out, or the clients' ACKs, which is then said with who did, or they or the ACKs were lost beyond it",
		Shown: "retransmitted SYN-ACKs, expired handshakes, and SYNs repeated by the same clients",
		Do: []string{
			"trace the way back: ip route get CLIENT on the server, and tcpdump at both ends",
			"look for asymmetric routing, a stateful firewall that saw one direction only, and wrong source addresses after NAT",
		},
		Owner: "network", Causes: []Cause{CauseHandshakeExpired},
	},
	{
		ID: FindingClientGaveUp, Title: "clients do not finish their handshakes",
		Means: "clients ended their handshakes by an RST; or SYN-ACKs went unanswered, and the SYNs did not come again: " +
			"the clients left, never meant to connect, or their ACKs were lost here or on the way",
		Shown: "the clients' own RSTs, or, as possible only, retransmitted SYN-ACKs or expired handshakes without repeated SYNs",
		Do: []string{
			"look for what drops packets with ACK and without SYN to the listener's port, unless the clients' own RSTs were seen",
			"look at what the clients are: port scans and half-open health checks leave as well",
			"compare the clients' connect timeout with the time that their SYN-ACK takes",
		},
		Owner: "client", Causes: []Cause{CauseHandshakeExpired},
	},
	{
		ID: FindingDroppedBeforeListener, Title: "packets die before the listener",
		Means: "the kernel dropped SYNs before any listener saw them: netfilter, reverse path filter, policy, checksum or CPU backlog",
		Shown: "the deaths by cause, with the kernel's function, reason or hook",
		Do:    []string{"change what the finding names: the firewall rule, rp_filter, the policy, the sender or its NIC's offload, netdev_max_backlog"},
		Owner: "network", Causes: []Cause{CauseNetfilter, CauseRPFilter, CausePolicy,
			CauseChecksum, CauseCPUBacklog, CauseTimeWait},
	},
	{
		ID: FindingNoListener, Title: "nothing listens there",
		Means: "SYNs were answered with a reset because no socket listens on that address and port in that network namespace",
		Shown: "resets by no_listener, and what listens on the port elsewhere",
		Do: []string{
			"start the service, or correct the port that clients use",
			"check the address and device it is bound to: a listener on 127.0.0.1 does not serve others",
			"check the network namespace: a container's listener is not the host's",
		},
		Owner: "application", Causes: []Cause{CauseNoListener},
	},
	{
		ID: FindingListenerRestarted, Title: "the listener was closed",
		Means: "the listening socket was closed or replaced while handshakes were pending or connections waited in its queue",
		Shown: "deaths by listener_closed, and the socket that took its place",
		Do: []string{
			"hand the socket over on restart (socket activation, SO_REUSEPORT with net.ipv4.tcp_migrate_req=1) instead of closing it",
			"take the instance out of the load balancer before it stops, and accept what waits before closing",
		},
		Owner: "application", Causes: []Cause{CauseListenerClosed},
	},
	{
		ID: FindingOtherDrops, Title: "handshakes die of something else",
		Means: "the kernel dropped or reset handshake packets for a reason that no other finding covers, or that what was seen does not explain",
		Shown: "the deaths by the kernel's own cause; docs/causes.md says what each means. An addition to the other findings, told only where none of them fits",
		Do:    []string{"do what docs/causes.md says for the cause named"},
		Owner: "node", Causes: []Cause{CauseNoMemory, CauseNoRouteBack, CauseDeniedByLSM,
			CauseCookieInvalid, CauseBadHandshakeAck, CauseICMPError,
			CauseBadSyn, CauseAuthFailed, CauseSocketFilter, CauseKernelOther},
	},
	{
		ID: FindingNoSynArrived, Title: "no SYN arrived",
		Means: "no SYN for this filter reached this kernel's IP stack in the window",
		Shown: "SYN counts of zero; XDP and tc programs on the interfaces, at the end of the window, are named because they act before: that they are there does not say that they dropped anything",
		Do: []string{
			"look at the XDP and tc programs named: bpftool net show dev DEVICE, in the network namespace named",
			"check the filter: behind DNAT the port is the pod's, not the NodePort's",
			"look upstream: load balancer, security group, routing, the client itself",
		},
		Owner: "network",
	},
	{
		ID: FindingHealthy, Title: "the listen path is not the problem",
		Means: "SYNs arrived and none was dropped",
		Shown: "the SYNs seen, and no drop",
		Do: []string{
			"look behind accept(): the application's own latency, TLS, upstream services",
			"or watch again while clients time out: synspy diagnose --duration 5m",
		},
		Owner: "application",
	},
}

// Findings lists all findings in the table's order. The caller must not change it.
func Findings() []FindingInfo { return findings }

// FindingOf finds what is said about a finding.
func FindingOf(id FindingID) (FindingInfo, bool) {
	for _, f := range findings {
		if f.ID == id {
			return f, true
		}
	}
	return FindingInfo{}, false
}
