// SPDX-License-Identifier: Apache-2.0

package event

import "slices"

// Cause says why a handshake packet died. Names are fixed by the record schema.
type Cause uint8

// The causes, in the order of the table below.
const (
	CauseUnknown Cause = iota
	CauseAcceptQueueFull
	CauseSynQueueFull
	CauseSynBacklogReserve
	CauseNoMemory
	CauseNoRouteBack
	CauseDeniedByLSM
	CauseCookieInvalid
	CauseFastopenQueueFull
	CauseDeferAccept
	CauseBadHandshakeAck
	CauseICMPError
	CauseListenerClosed
	CauseHandshakeExpired
	CauseBadSyn
	CauseAuthFailed
	CauseSocketFilter
	CauseNoListener
	CauseTimeWait
	CauseNetfilter
	CauseRPFilter
	CauseChecksum
	CauseCPUBacklog
	CausePolicy
	CauseKernelOther
	NumCauses
)

// Stage says how far the handshake had come.
type Stage uint8

// The stages a packet can die at.
const (
	StageUnknown Stage = iota
	StageSyn
	StageAck
	StageTimer
	StageClose
	StageIngress
	NumStages
)

// Action says what the kernel did with the packet.
type Action uint8

// The actions. Ignored is deliberate and harmless.
const (
	ActionUnknown Action = iota
	ActionDropped
	ActionReset
	ActionIgnored
	NumActions
)

// Proof says how a cause is known.
type Proof uint8

// The proofs, strongest first.
const (
	ProofUnknown Proof = iota
	ProofSocket        // of a listener: the kernel handed us this socket
	ProofCounters
	ProofReturn
	ProofHelper
	ProofReason
	ProofState
	NumProofs
)

var (
	stageNames  = [NumStages]string{"unknown", "syn", "ack", "timer", "close", "ingress"}
	actionNames = [NumActions]string{"unknown", "dropped", "reset", "ignored"}
	proofNames  = [NumProofs]string{"unknown", "socket", "counters", "return", "helper",
		"reason", "state"}
)

// CauseInfo is everything said about a cause anywhere: the stream, the help,
// the completion and the documentation all read this table.
type CauseInfo struct {
	Cause    Cause
	Name     string    // as in records
	Title    string    // a few words, for tables
	Explain  string    // one sentence: what happened
	Client   string    // what the client sees
	Fix      string    // what to change, most useful first
	Owner    string    // whose knob that is: application, platform, node, network or client
	Stages   []Stage   // where it can happen
	Counters []Counter // which of the closed list move, empty where none does
	// Why no outcome has it, no finding explains it, no scenario of the lab plays it; empty
	// where one does.
	NoOutcome, NoFinding, NoScenario string
}

var causes = [NumCauses]CauseInfo{
	CauseUnknown: {Name: "unknown"},
	CauseAcceptQueueFull: {
		Name: "accept_queue_full", Title: "accept queue full",
		Explain:  "the listener's queue of finished handshakes is over its limit because the process does not call accept() fast enough",
		Client:   "SYN dropped: connect times out; ACK dropped: connected but silent; with tcp_abort_on_overflow: connection reset",
		Fix:      "make accept() fast, add workers, then raise the listen() backlog together with net.core.somaxconn",
		Owner:    "application",
		Stages:   []Stage{StageSyn, StageAck},
		Counters: []Counter{CounterListenOverflows, CounterListenDrops},
	},
	CauseSynQueueFull: {
		Name: "syn_queue_full", Title: "SYN queue full",
		Explain:  "the listener holds as many half-open handshakes as its backlog allows and SYN cookies are off",
		Client:   "connect times out",
		Fix:      "turn on net.ipv4.tcp_syncookies, or raise the listen() backlog together with net.core.somaxconn",
		Owner:    "node",
		Stages:   []Stage{StageSyn},
		Counters: []Counter{CounterTCPReqQFullDrop, CounterListenDrops},
	},
	CauseSynBacklogReserve: {
		Name: "syn_backlog_reserve", Title: "SYN backlog reserve",
		Explain:  "SYN cookies are off and the last quarter of tcp_max_syn_backlog is kept for clients that were seen before",
		Client:   "connect times out",
		Fix:      "turn on net.ipv4.tcp_syncookies, or raise net.ipv4.tcp_max_syn_backlog",
		Owner:    "node",
		Stages:   []Stage{StageSyn},
		Counters: []Counter{CounterListenDrops},
	},
	CauseNoMemory: {
		Name: "no_memory", Title: "out of memory",
		Explain:    "the kernel could not allocate the request or the child socket",
		Client:     "SYN dropped: connect times out; ACK dropped: connected but silent",
		Fix:        "free memory on the node, or raise net.ipv4.tcp_mem and the cgroup's memory limit",
		Owner:      "node",
		Stages:     []Stage{StageSyn, StageAck},
		Counters:   []Counter{CounterListenDrops},
		NoOutcome:  "a failed allocation moves no counter of its own",
		NoScenario: "no record has it",
	},
	CauseNoRouteBack: {
		Name: "no_route_back", Title: "no route back",
		Explain:  "the server has no way to answer the client: no route, or a rule or an IPsec policy that refuses it",
		Client:   "SYN dropped: connect times out; ACK dropped: connected but silent",
		Fix:      "look for the route in the listener's namespace: ip route get CLIENT from SERVER; add it where there is none, change the rule (ip rule) where one refuses; where there is one, an IPsec policy refuses the answer: ip xfrm policy, and XfrmOutPolBlock in /proc/net/xfrm_stat",
		Owner:    "network",
		Stages:   []Stage{StageSyn, StageAck},
		Counters: []Counter{CounterListenDrops},
	},
	CauseDeniedByLSM: {
		Name: "denied_by_lsm", Title: "denied by LSM",
		Explain:  "a security module refused the connection request",
		Client:   "connect times out",
		Fix:      "look for the denial in the audit log and change the SELinux, Smack or BPF LSM policy",
		Owner:    "platform",
		Stages:   []Stage{StageSyn, StageAck},
		Counters: []Counter{CounterListenDrops},
	},
	CauseCookieInvalid: {
		Name: "cookie_invalid", Title: "invalid SYN cookie",
		Explain:  "an ACK reached the listener that is no valid SYN cookie: late, forged, or for a connection this host does not know",
		Client:   "connection reset",
		Fix:      "size the SYN queue so that cookies are not needed; look for stale or spoofed traffic",
		Owner:    "client",
		Stages:   []Stage{StageAck},
		Counters: []Counter{CounterSyncookiesFailed},
	},
	CauseFastopenQueueFull: {
		Name: "fastopen_queue_full", Title: "Fast Open queue full",
		Explain:   "TCP Fast Open was refused because its queue is full; the kernel answers with an ordinary SYN-ACK",
		Client:    "an ordinary handshake, one round trip slower",
		Fix:       "raise the TCP_FASTOPEN socket option's queue length",
		Owner:     "application",
		Stages:    []Stage{StageSyn},
		Counters:  []Counter{CounterTCPFastOpenListenOverflow},
		NoFinding: "nothing dies of it",
	},
	CauseDeferAccept: {
		Name: "defer_accept", Title: "deferred by TCP_DEFER_ACCEPT",
		Explain:   "the listener set TCP_DEFER_ACCEPT, so a bare ACK is ignored on purpose until data arrives",
		Client:    "connected; normal once it sends data",
		Fix:       "none needed; remove TCP_DEFER_ACCEPT (nginx: deferred) if the server speaks first",
		Owner:     "application",
		Stages:    []Stage{StageAck},
		Counters:  []Counter{CounterTCPDeferAcceptDrop},
		NoFinding: "nothing dies of it",
	},
	CauseBadHandshakeAck: {
		Name: "bad_handshake_ack", Title: "bad handshake packet",
		Explain:  "a packet for a half-open handshake did not fit it: wrong numbers, outside the window, or an RST or SYN",
		Client:   "connection reset, or nothing when the packet was dropped quietly",
		Fix:      "look for middleboxes that rewrite sequence numbers, duplicated addresses, and clients that reset early",
		Owner:    "network",
		Stages:   []Stage{StageAck},
		Counters: []Counter{CounterEmbryonicRsts},
	},
	CauseICMPError: {
		Name: "icmp_error", Title: "ICMP error to the SYN-ACK",
		Explain:  "an ICMP error answered the SYN-ACK and removed the half-open handshake",
		Client:   "nothing, or its next packet is reset",
		Fix:      "find who sends the ICMP error: a firewall or router on the way back to the client",
		Owner:    "network",
		Stages:   []Stage{StageAck},
		Counters: []Counter{CounterListenDrops},
	},
	CauseListenerClosed: {
		Name: "listener_closed", Title: "listener closed",
		Explain: "the listener was closed or replaced with handshakes pending or unaccepted",
		Client:  "connection reset",
		Fix:     "drain before closing: stop new traffic first, then accept what is queued",
		Owner:   "application",
		Stages:  []Stage{StageAck, StageTimer, StageClose},
	},
	CauseHandshakeExpired: {
		Name: "handshake_expired", Title: "handshake expired",
		Explain: "SYN-ACKs went unanswered until net.ipv4.tcp_synack_retries ran out, or could not be sent again",
		Client:  "connect times out: the answer or its return path is lost",
		Fix:     "check the return path to the client: routing, firewalls, spoofed sources",
		Owner:   "network",
		Stages:  []Stage{StageTimer},
	},
	CauseBadSyn: {
		Name: "bad_syn", Title: "malformed SYN",
		Explain: "the SYN was invalid: FIN set, sent to a broadcast or multicast address, or with broken options",
		Client:  "connect times out",
		Fix:     "find the sender: a scanner or a broken middlebox",
		Owner:   "client",
		Stages:  []Stage{StageSyn},
	},
	CauseAuthFailed: {
		Name: "auth_failed", Title: "TCP MD5 or TCP-AO failed",
		Explain: "the TCP MD5 or TCP-AO signature was missing, unexpected or wrong",
		Client:  "connect times out",
		Fix:     "compare the keys of both ends",
		Owner:   "client",
		Stages:  []Stage{StageSyn, StageAck},
	},
	CauseSocketFilter: {
		Name: "socket_filter", Title: "socket filter, cgroup or security module",
		Explain: "a BPF filter on the listener, a cgroup's ingress program or a security module refused the packet",
		Client:  "connect times out",
		Fix:     "list the filters with ss -b and bpftool cgroup tree; where there are none, look for the denial in the audit log (SELinux, Smack, BPF LSM)",
		Owner:   "platform",
		Stages:  []Stage{StageSyn, StageAck},
	},
	CauseNoListener: {
		Name: "no_listener", Title: "nothing listens there",
		Explain: "nothing listens on that address and port in that namespace, or only bound to another device or address",
		Client:  "connection refused",
		Fix:     "start the server, or fix the address it binds",
		Owner:   "application",
		Stages:  []Stage{StageIngress},
	},
	CauseTimeWait: {
		Name: "time_wait", Title: "refused by TIME_WAIT",
		Explain: "the SYN met a TIME_WAIT socket of the same addresses and ports that refused it",
		Client:  "an ACK of the old connection comes back; connect times out, or starts over",
		Fix:     "let clients, or the NAT in front of them, use more addresses or source ports; what else helps depends on why: TCP timestamps take SYNs whose sequence number is old, and refuse those whose own timestamp is older (PAWS)",
		Owner:   "client",
		Stages:  []Stage{StageIngress},
	},
	CauseNetfilter: {
		Name: "netfilter", Title: "firewall",
		Explain: "iptables or nftables dropped or rejected the packet",
		Client:  "connect times out, or is refused by a REJECT",
		Fix:     "change the rule that drops it: synspy diagnose names the hook and the commands that list its rules",
		Owner:   "platform",
		Stages:  []Stage{StageIngress},
	},
	CauseRPFilter: {
		Name: "rp_filter", Title: "reverse path filter",
		Explain: "the packet arrived on an interface that the route back to its source does not use",
		Client:  "connect times out",
		Fix:     "fix the routing, or set net.ipv4.conf.*.rp_filter to 2 (loose)",
		Owner:   "network",
		Stages:  []Stage{StageIngress},
	},
	CauseChecksum: {
		Name: "checksum", Title: "bad checksum",
		Explain: "the IP or TCP checksum was wrong",
		Client:  "connect times out",
		Fix:     "look for broken offloads or corrupting links",
		Owner:   "network",
		Stages:  []Stage{StageIngress},
	},
	CauseCPUBacklog: {
		Name: "cpu_backlog", Title: "CPU receive backlog full",
		Explain: "the per-CPU queue of received packets was full",
		Client:  "connect times out",
		Fix:     "raise net.core.netdev_max_backlog, spread interrupts over CPUs",
		Owner:   "node",
		Stages:  []Stage{StageIngress},
	},
	CausePolicy: {
		Name: "policy", Title: "XFRM or TTL policy",
		Explain: "an IPsec policy or a minimum TTL refused the packet",
		Client:  "connect times out",
		Fix:     "compare ip xfrm policy and the IP_MINTTL socket option with the client's traffic",
		Owner:   "platform",
		Stages:  []Stage{StageIngress},
	},
	CauseKernelOther: {
		Name: "kernel_other", Title: "other kernel drop",
		Explain:  "the kernel dropped the packet for a reason that has no cause of its own here; its function, and its reason where it gives one, are named",
		Client:   "connect times out, or is refused: it depends on where the packet was dropped",
		Fix:      "see what the finding of synspy diagnose says for the kernel's reason; without a reason, look up the function that is named in the kernel's source: the condition before it says what to change",
		Owner:    "node",
		Stages:   []Stage{StageSyn, StageAck, StageTimer, StageClose, StageIngress},
		Counters: []Counter{CounterListenDrops},
	},
}

// Info returns everything said about the cause.
func (c Cause) Info() CauseInfo {
	if c >= NumCauses {
		c = CauseUnknown
	}
	info := causes[c]
	info.Cause = c
	return info
}

// String returns the cause's name as records carry it.
func (c Cause) String() string { return c.Info().Name }

// MarshalText makes JSON carry the name.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the name; unknown names become CauseUnknown.
func (c *Cause) UnmarshalText(b []byte) error { *c, _ = ParseCause(string(b)); return nil }

// Causes lists all causes in table order.
func Causes() []CauseInfo {
	list := make([]CauseInfo, 0, NumCauses-1)
	for c := CauseUnknown + 1; c < NumCauses; c++ {
		list = append(list, c.Info())
	}
	return list
}

// ParseCause finds a cause by its name.
func ParseCause(name string) (Cause, bool) {
	for c := CauseUnknown + 1; c < NumCauses; c++ {
		if causes[c].Name == name {
			return c, true
		}
	}
	return CauseUnknown, false
}

func name[T ~uint8](names []string, v T) string {
	if int(v) >= len(names) {
		return names[0]
	}
	return names[v]
}

func parse[T ~uint8](names []string, s string) (T, bool) {
	i := slices.Index(names[1:], s)
	return T(i + 1), i >= 0
}

// String returns the stage's name.
func (s Stage) String() string { return name(stageNames[:], s) }

// MarshalText makes JSON carry the name.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name; unknown names become StageUnknown.
func (s *Stage) UnmarshalText(b []byte) error { *s, _ = ParseStage(string(b)); return nil }

// ParseStage finds a stage by its name.
func ParseStage(s string) (Stage, bool) { return parse[Stage](stageNames[:], s) }

// StageNames lists the stages' names.
func StageNames() []string { return stageNames[1:] }

// String returns the action's name.
func (a Action) String() string { return name(actionNames[:], a) }

// MarshalText makes JSON carry the name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the name; unknown names become ActionUnknown.
func (a *Action) UnmarshalText(b []byte) error {
	*a, _ = parse[Action](actionNames[:], string(b))
	return nil
}

// String returns the proof's name.
func (p Proof) String() string { return name(proofNames[:], p) }

// MarshalText makes JSON carry the name.
func (p Proof) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the name; unknown names become ProofUnknown.
func (p *Proof) UnmarshalText(b []byte) error {
	*p, _ = parse[Proof](proofNames[:], string(b))
	return nil
}
