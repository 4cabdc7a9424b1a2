// SPDX-License-Identifier: Apache-2.0

package event

import "strings"

// Reason is everything said about one of the kernel's drop reasons (enum skb_drop_reason):
// findings and the test that walks over the newest kernel's enum read this table.
type Reason struct {
	Name    string // without SKB_DROP_REASON_
	Title   string // a few words, for tables
	Explain string // a clause: what happened to the packet
	Fix     []string
	// Settings are the sysctls that decide, to be tried next.
	Settings []Setting
	Else     []string // what to do instead
	Owner    string
	// WhyNot says why there is nothing to say: no packet of a handshake dies of it, or
	// another part of the report tells. Then nothing of the above is set.
	WhyNot string

	// Outcomes is what it means for a handshake; without it, what any loss does.
	Outcomes Outcomes
	NoLoss   bool   // of copies for others, and of what is sent or waits no more
	Part     string // which deaths of its outcomes' causes those are; empty: all
	// Shared says that functions of TCP free for it, which free for other reasons, too: without
	// it nothing tells for whom the packet was.
	Shared bool
}

// Outcomes is what a packet died of that the kernel freed for a reason, where nothing else says
// more.
type Outcomes struct {
	Syn Outcome // of a SYN; none: the reason does not say
	Ack Outcome // of another packet of a half-open handshake; none: it is no loss
}

// What many reasons have, or none.
var (
	anyLoss = Outcomes{OutcomeIngressOther, OutcomeAckOtherFreed}
	unsaid  = Outcomes{OutcomeNone, OutcomeAckBadQuiet}
	unfit   = Outcomes{OutcomeAckBadQuiet, OutcomeAckBadQuiet} // wrong numbers for its handshake
	badAuth = Outcomes{OutcomeSynAuthFailed, OutcomeAckAuthFailed}
)

// Setting is a sysctl. In its name DEVICE stands for the device that the packet came in
// by, and IPv for ipv4 or ipv6.
type Setting struct {
	Name string
	Try  string // a value; empty where it depends
	// Only is the present value for which there is something to try; empty for any.
	Only string
	// With says how conf.all takes part: the value in force is the larger of the two.
	With bool
	Host bool // only the machine's first network namespace has it
	Why  string
}

// For returns the sysctl's name for a device and a family, and that which takes part in
// it, empty where none does. Without a device, that is the one named instead.
func (s Setting) For(device string, v6 bool) (name, all string) {
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	name = strings.ReplaceAll(s.Name, "IPv", family)
	if !strings.Contains(name, "DEVICE") {
		return name, ""
	}
	all = strings.Replace(name, "DEVICE", "all", 1)
	if device == "" {
		return all, ""
	}
	// As sysctl writes it: a dot in a device's name would end it.
	name = strings.Replace(name, "DEVICE", strings.ReplaceAll(device, ".", "/"), 1)
	if !s.With {
		all = ""
	}
	return name, all
}

// Why so many reasons have nothing to say.
const (
	onTheWayOut  = "of packets on their way out: no packet of a client's is freed with it"
	ofData       = "of data on connections that are established"
	ofOthers     = "of packets that are no TCP"
	ofNeighbours = "of the neighbour discovery of IPv6"
	saidByCause  = "its cause says all there is to say"
)

const onWire = "look at the packets on the device: tcpdump -vvXi DEVICE, and ethtool -S DEVICE for what the driver counts"

var reasons = []Reason{
	{Name: "SKB_NOT_DROPPED_YET", WhyNot: "no drop"},
	{Name: "SKB_CONSUMED", WhyNot: "no drop", NoLoss: true},
	{Name: "NOT_SPECIFIED", Outcomes: unsaid,
		WhyNot: "says nothing: the function that freed the packet is told instead"},
	{Name: "NO_SOCKET", WhyNot: saidByCause,
		Outcomes: Outcomes{OutcomeIngressNoListener, OutcomeAckBadQuiet}, Shared: true},
	{Name: "SOCKET_CLOSE",
		WhyNot: "of what waited in a socket that is closed: listener_closed tells of connections"},
	{Name: "SOCKET_FILTER", WhyNot: saidByCause,
		Outcomes: Outcomes{OutcomeSynSocketFilter, OutcomeAckSocketFilter}, Shared: true},
	{Name: "SOCKET_RCVBUFF", WhyNot: "of copies for raw and packet sockets, and of UDP",
		NoLoss: true},
	{Name: "UNIX_DISCONNECT", WhyNot: ofOthers},
	{Name: "UNIX_SKIP_OOB", WhyNot: ofOthers},
	{
		Name: "PKT_TOO_SMALL", Title: "cut short", Owner: "network",
		Explain: "they were shorter than their headers say",
		Fix:     []string{"find who cuts it: a link with errors, a tunnel, or a sender that makes such packets", onWire},
	},
	{
		Name: "IP_CSUM", Title: "bad IP checksum", Owner: "network",
		Outcomes: Outcomes{OutcomeIngressChecksum, OutcomeAckOtherFreed},
		Part:     "of the IP header",
		Explain:  "the checksum of the IPv4 header was wrong",
		Fix: []string{"look for an offload that fails, and turn it off on both ends of the link: ethtool -K DEVICE tx off rx off",
			"or for a middlebox that changes packets and not their checksum: compare tcpdump -vv at both ends"},
	},
	{
		Name: "TCP_CSUM", Title: "bad TCP checksum", Owner: "network",
		Outcomes: Outcomes{OutcomeIngressChecksum, OutcomeAckOtherFreed},
		Part:     "of TCP", Shared: true,
		Explain: "the TCP checksum was wrong",
		Fix: []string{"look for an offload that fails, and turn it off on both ends of the link: ethtool -K DEVICE tx off rx off",
			"or for a middlebox that changes packets and not their checksum: compare tcpdump -vv at both ends"},
	},
	{Name: "UDP_CSUM", WhyNot: ofOthers},
	{Name: "NETFILTER_DROP", WhyNot: saidByCause,
		Outcomes: Outcomes{OutcomeIngressNetfilter, OutcomeAckOtherFreed}},
	{Name: "OTHERHOST", WhyNot: "of frames for another machine's hardware address: no loss",
		NoLoss: true},
	{
		Name: "IP_INHDR", Title: "bad IP header", Owner: "network",
		Explain: "their IP header was wrong, had an IPv6 address that no machine can have, or said that their time to live is over",
		Fix:     []string{"where this host forwards: look for a routing loop (traceroute to the server, from the client)", onWire},
	},
	{
		Name: "IP_RPFILTER", Title: "reverse path filter", Owner: "network",
		Outcomes: Outcomes{OutcomeIngressRPFilter, OutcomeAckOtherFreed},
		Explain:  "they came in by a device that the route back to their source does not use",
		Fix:      []string{"let the route back use the same device: ip route get CLIENT says which one it uses"},
		Settings: []Setting{{Name: "net.ipv4.conf.DEVICE.rp_filter", Try: "2", Only: "1",
			With: true,
			Why:  "2 takes what has any route back; the larger of this and conf.all counts"}},
	},
	{
		Name: "UNICAST_IN_L2_MULTICAST", Title: "unicast in a broadcast frame",
		Owner:   "network",
		Explain: "they were for one address, and their frames were for many",
		Fix:     []string{"send frames to the server's own hardware address: load balancers in multicast mode do not"},
		Settings: []Setting{{Name: "net.IPv.conf.DEVICE.drop_unicast_in_l2_multicast",
			Try: "0", Only: "1", With: true,
			Why: "where such frames are meant; both this and conf.all have to be 0"}},
	},
	{
		Name: "XFRM_POLICY", Title: "refused by IPsec policy", Owner: "platform",
		Outcomes: Outcomes{OutcomeIngressPolicy, OutcomeAckOtherFreed},
		Part:     "IPsec", Shared: true,
		Explain: "an IPsec policy refused them: they should have come encrypted, or the policy blocks them",
		Fix: []string{"compare the policies and the states of both ends: ip xfrm policy; ip xfrm state, and /proc/net/xfrm_stat for what failed",
			"or let the policy leave this traffic alone"},
	},
	{Name: "IP_NOPROTO", WhyNot: ofOthers},
	{
		Name: "PROTO_MEM", Title: "TCP out of memory", Owner: "node",
		Explain: "all TCP sockets together were over the limit of memory, net.ipv4.tcp_mem",
		Fix: []string{
			"find who holds it: ss -tm, and /proc/net/sockstat for how much is used"},
		Settings: []Setting{{Name: "net.ipv4.tcp_mem", Try: "twice each number", Host: true,
			Why: "in pages"}},
	},
	{
		Name: "TCP_AUTH_HDR", Title: "broken TCP signature", Owner: "client",
		Outcomes: badAuth, Shared: true,
		Explain: "their TCP MD5 or TCP-AO option was there twice, or broken",
		Fix:     []string{"find who makes such options: the client, or a middlebox that changes them"},
	},
	{
		Name: "TCP_MD5NOTFOUND", Title: "no TCP MD5 signature", Owner: "client",
		Outcomes: badAuth, Shared: true,
		Explain: "the listener has a TCP MD5 key for the client, and they had no signature",
		Fix:     []string{"set the same key at the client (BGP: the session's password), or remove the listener's"},
	},
	{
		Name: "TCP_MD5UNEXPECTED", Title: "unexpected TCP MD5 signature",
		Owner:    "application",
		Outcomes: badAuth, Shared: true,
		Explain: "they had a TCP MD5 signature, and the listener has no key for the client",
		Fix:     []string{"give the listener the client's key for that address (BGP: the session's password), or remove the client's"},
	},
	{
		Name: "TCP_MD5FAILURE", Title: "wrong TCP MD5 signature", Owner: "client",
		Outcomes: badAuth, Shared: true,
		Explain: "their TCP MD5 signature was wrong: the keys differ, or addresses or ports were changed on the way",
		Fix: []string{"compare the keys of both ends",
			"look for NAT in between: the addresses and ports are signed, too"},
	},
	{
		Name: "TCP_AONOTFOUND", Title: "no TCP-AO signature", Owner: "client",
		Outcomes: badAuth, Shared: true,
		Explain: "the listener wants TCP-AO from the client, and they had none",
		Fix:     []string{"set the same keys at the client, or remove the listener's"},
	},
	{
		Name: "TCP_AOUNEXPECTED", Title: "unexpected TCP-AO signature",
		Owner:    "application",
		Outcomes: badAuth, Shared: true,
		Explain: "they had a TCP-AO signature, and the listener has no key for the client",
		Fix: []string{
			"give the listener the client's keys, or remove them at the client"},
	},
	{
		Name: "TCP_AOKEYNOTFOUND", Title: "unknown TCP-AO key", Owner: "client",
		Outcomes: badAuth, Shared: true,
		Explain: "their TCP-AO key is not one of the listener's",
		Fix:     []string{"compare the key numbers (SendID and RecvID) of both ends"},
	},
	{
		Name: "TCP_AOFAILURE", Title: "wrong TCP-AO signature", Owner: "client",
		Outcomes: badAuth, Shared: true,
		Explain: "their TCP-AO signature was wrong: the keys differ, or they were changed on the way",
		Fix: []string{"compare the keys of both ends",
			"look for NAT in between: the addresses and ports are signed, too"},
	},
	{
		Name: "SOCKET_BACKLOG", Title: "busy connection", Owner: "application",
		Explain: "the connection that they were for was in use, and more packets waited for that than its receive buffer takes",
		Fix:     []string{"look at what its process does with the connection: see the threads, and ss -tmi for its buffers"},
		Settings: []Setting{{Name: "net.ipv4.tcp_rmem", Try: "twice the last number",
			Why: "in bytes: the least, the usual and the largest receive buffer"}},
	},
	{Name: "TCP_FLAGS", WhyNot: saidByCause, Part: "with FIN",
		Outcomes: Outcomes{OutcomeSynBadSynFlags, OutcomeAckBadQuiet}, Shared: true},
	{Name: "TCP_ABORT_ON_DATA", WhyNot: "of data for connections that were closed"},
	{Name: "TCP_ZEROWINDOW", WhyNot: ofData},
	{Name: "TCP_OLD_DATA", WhyNot: ofData},
	{
		Name: "TCP_OVERWINDOW", Title: "outside the window", Owner: "network",
		Outcomes: unfit,
		Explain:  "their sequence number was beyond the window that the server offered",
		Fix:      []string{"look for a middlebox that changes sequence numbers on one way only, and for two machines with one address"},
	},
	{Name: "TCP_OFOMERGE", WhyNot: ofData},
	{
		Name: "TCP_RFC7323_PAWS", Title: "older timestamp (PAWS)", Owner: "network",
		Outcomes: unfit,
		Explain:  "their TCP timestamp was older than the one before on the same addresses and ports (PAWS): another machine behind the same NAT address, or a rewritten timestamp",
		Fix:      []string{"give clients behind one NAT address ports of their own, or let the NAT rewrite or take off timestamps", "look for a middlebox that changes timestamps on one way only"},
	},
	{
		Name: "TCP_RFC7323_PAWS_ACK", Title: "older timestamp (PAWS)", Owner: "network",
		Outcomes: unfit,
		Explain:  "they were old ACKs that came late, as their TCP timestamp says",
		Fix:      []string{"look for reordering on the way; a few are harmless"},
	},
	{
		Name: "TCP_RFC7323_TW_PAWS", Title: "TIME_WAIT, older timestamp (PAWS)",
		Owner:    "network",
		Outcomes: Outcomes{OutcomeIngressTimeWaitPAWS, OutcomeAckOtherFreed},
		Explain:  "the SYNs' TCP timestamp was older than that of the connection in TIME_WAIT on the same addresses and ports (PAWS), as of another client behind the same NAT address",
		Fix: []string{"give the NAT more addresses or ports, so that it uses none again within a minute, or let it rewrite TCP timestamps or take them off",
			"keep connections open, so that fewer end",
			"let clients close first: TIME_WAIT is then theirs"},
	},
	{
		Name: "TCP_RFC7323_TSECR", Title: "timestamp never sent", Owner: "network",
		Outcomes: unfit,
		Explain:  "they gave back a TCP timestamp that the server never sent",
		Fix:      []string{"look for a middlebox that changes timestamps on one way only; else it was forged"},
	},
	{Name: "TCP_LISTEN_OVERFLOW", WhyNot: saidByCause},
	{
		Name: "TCP_OLD_SEQUENCE", Title: "old sequence number", Owner: "network",
		Outcomes: unfit,
		Explain:  "their sequence number was older than what the server has already",
		Fix: []string{"look for packets that come twice or late; a few are harmless",
			"look for a middlebox that changes sequence numbers on one way only"},
	},
	{
		Name: "TCP_INVALID_SEQUENCE", Title: "wrong sequence number", Owner: "network",
		Outcomes: unfit,
		Explain:  "their sequence number did not fit the handshake",
		Fix:      []string{"look for a middlebox that changes sequence numbers on one way only, and for two machines with one address"},
	},
	{
		Name: "TCP_INVALID_END_SEQUENCE", Title: "more than the window takes",
		Owner:    "client",
		Outcomes: unfit,
		Explain:  "they ended beyond the window that the server offered",
		Fix:      []string{"find the sender that ignores the window: a client with a TCP of its own, or a middlebox that changes window scaling"},
	},
	{
		Name: "TCP_INVALID_ACK_SEQUENCE", Title: "wrong ACK number", Owner: "network",
		Outcomes: unfit,
		Explain:  "they acknowledged what the server never sent",
		Fix:      []string{"look for a middlebox that changes sequence numbers on one way only, and for two machines with one address"},
	},
	{
		Name: "TCP_RESET", Title: "reset that does not fit", Owner: "network",
		Outcomes: unfit,
		Explain:  "they were resets whose numbers do not fit",
		Fix:      []string{"look for who sends it: a firewall that resets connections which it does not know"},
	},
	{
		Name: "TCP_INVALID_SYN", Title: "SYN on an old connection", Owner: "client",
		Outcomes: Outcomes{OutcomeIngressOtherConnection, OutcomeAckBadQuiet},
		Part:     "of a SYN on a connection", Shared: true,
		Explain: metOld,
		Fix:     []string{challenged, findOutGone, morePorts},
	},
	{
		Name: "TCP_CLOSE", Title: "closed socket", Owner: "application",
		Explain: "the socket that they were for had just been closed",
		Fix:     []string{"take the server out of the load balancer before it closes its listener or connections"},
	},
	{
		Name: "TCP_FASTOPEN", Title: "Fast Open handshake", Owner: "client",
		Explain: "they met a half-open TCP Fast Open handshake: SYNs sent again, since the SYN-ACK does not get to the client, or what does not fit it",
		Fix:     []string{"find out where SYN-ACKs are lost: a firewall, or a middlebox that does not pass Fast Open on; or do without it"},
		Settings: []Setting{{Name: "net.ipv4.tcp_fastopen", Try: "1", Only: "3",
			Why: "2 is the bit for servers"}},
	},
	{
		Name: "TCP_OLD_ACK", Title: "old ACK", Owner: "network",
		Outcomes: unfit,
		Explain:  "they acknowledged less than was acknowledged before",
		Fix:      []string{"look for reordering on the way; a few are harmless"},
	},
	{
		Name: "TCP_TOO_OLD_ACK", Title: "ACK too old", Owner: "network",
		Outcomes: unfit,
		Explain:  "they acknowledged what lies further back than a window",
		Fix:      []string{"look for a middlebox that changes sequence numbers on one way only; else it was forged"},
	},
	{
		Name: "TCP_ACK_UNSENT_DATA", Title: "ACK of what was never sent", Owner: "network",
		Outcomes: unfit,
		Explain:  "they acknowledged what the server never sent",
		Fix:      []string{"look for a middlebox that changes sequence numbers on one way only; else it was forged"},
	},
	{Name: "TCP_OFO_QUEUE_PRUNE", WhyNot: ofData},
	{Name: "TCP_OFO_DROP", WhyNot: ofData},
	{
		Name: "IP_OUTNOROUTES", Title: "no route onwards", Owner: "network",
		Explain: "they were to leave again, and there is no route",
		Fix:     []string{"see what the kernel would do: ip route get ADDRESS from CLIENT iif DEVICE; unreachable, prohibit and blackhole routes say so there"},
	},
	{Name: "BPF_CGROUP_EGRESS", WhyNot: onTheWayOut, NoLoss: true},
	{
		Name: "IPV6DISABLED", Title: "IPv6 is off on the device", Owner: "node",
		Explain: "they came by a device on which IPv6 is turned off",
		Else: []string{
			"else take the server's AAAA record away, so that clients use IPv4"},
		Settings: []Setting{{Name: "net.ipv6.conf.DEVICE.disable_ipv6", Try: "0", Only: "1",
			Why: "then give the device its IPv6 addresses again: they were taken away with it"}},
	},
	{Name: "NEIGH_CREATEFAIL", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "NEIGH_FAILED", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "NEIGH_QUEUEFULL", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "NEIGH_DEAD", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "NEIGH_HH_FILLFAIL", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "TC_EGRESS", WhyNot: onTheWayOut, NoLoss: true},
	{
		Name: "SECURITY_HOOK", Title: "refused by a security module", Owner: "platform",
		Explain: "a security module (SELinux, Smack or a BPF program) did not let the listener have them",
		Fix: []string{"look for the denial in the audit log: ausearch -m avc -ts recent; journalctl -k --grep denied",
			"and change the policy: labels of network packets (SECMARK, NetLabel, labelled IPsec) count as well as those of processes"},
	},
	{Name: "QDISC_DROP", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "QDISC_BURST_DROP", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "QDISC_OVERLIMIT", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "QDISC_CONGESTED", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "CAKE_FLOOD", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "FQ_BAND_LIMIT", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "FQ_HORIZON_LIMIT", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "FQ_FLOW_LIMIT", WhyNot: onTheWayOut, NoLoss: true},
	{Name: "DUALPI2_STEP_DROP", WhyNot: onTheWayOut, NoLoss: true},
	{
		Name: "CPU_BACKLOG", Title: "CPU receive backlog full", Owner: "node",
		Outcomes: Outcomes{OutcomeIngressCPUBacklog, OutcomeAckOtherFreed},
		Explain:  "the queue of received packets of a CPU was full",
		Fix:      []string{"spread the packets over CPUs: interrupts and RSS of the device (ethtool -x DEVICE), or RPS; /proc/net/softnet_stat has the drops of each CPU in its second column"},
		Settings: []Setting{{Name: "net.core.netdev_max_backlog", Try: "10000", Host: true,
			Why: "in packets for each CPU; it helps against bursts, not against a CPU that is too slow"}},
	},
	{Name: "MACVLAN_BROADCAST_BACKLOG", WhyNot: "of frames to everybody"},
	{Name: "IPVLAN_MULTICAST_BACKLOG", WhyNot: "of frames to many"},
	{
		Name: "XDP", Title: "dropped by an XDP program", Owner: "platform",
		Explain: "an XDP program dropped them",
		Fix:     []string{"change the program: bpftool net show names it, or ask whoever loads it: a load balancer, a CNI plugin, protection against floods"},
	},
	{
		Name: "TC_INGRESS", Title: "dropped by tc", Owner: "platform",
		Explain: "a tc program or filter dropped them as they came in",
		Fix:     []string{"change the program or filter: tc filter show dev DEVICE ingress; bpftool net show names it, or ask whoever loads it"},
	},
	{
		Name: "UNHANDLED_PROTO", Title: "nobody takes such packets", Owner: "node",
		Explain: "nothing in this kernel takes packets of their protocol from that device",
		Fix: []string{"IPv6: the kernel runs with ipv6.disable=1 (see /proc/cmdline) or without the module: turn it on, or take the server's AAAA record away",
			"see whether the device is part of a bridge, bond or team that should take its packets: ip -d link show DEVICE"},
	},
	{Name: "SKB_CSUM", WhyNot: "of copies for raw sockets", NoLoss: true},
	{Name: "SKB_GSO_SEG", WhyNot: onTheWayOut, NoLoss: true},
	{
		Name: "SKB_BAD_GSO", Title: "bad segment size", Owner: "network",
		Explain: "they named a size of segments that cannot be (GSO)",
		Fix:     []string{"look at who makes it, a virtual machine or a driver, and turn its offloads off: ethtool -K DEVICE tso off gso off gro off"},
	},
	{
		Name: "SKB_UCOPY_FAULT", Title: "packet could not be copied", Owner: "node",
		Explain: "what a process had handed over as a packet could not be copied",
		Fix:     []string{"look at the process that makes packets, such as a virtual machine, and at free memory"},
	},
	{
		Name: "DEV_HDR", Title: "bad device header", Owner: "network",
		Explain: "the header that the device puts before packets was wrong",
		Fix:     []string{"compare the settings of both ends of the tunnel or virtual device: ip -d link show DEVICE"},
	},
	{
		Name: "DEV_READY", Title: "device not up", Owner: "node",
		Explain: "the device was not up, or not ready",
		Fix:     []string{"bring it up: ip link set DEVICE up, and see who took it down: ip monitor link; journalctl -k"},
	},
	{Name: "FULL_RING", WhyNot: onTheWayOut, NoLoss: true},
	{
		Name: "NOMEM", Title: "out of memory", Owner: "node",
		Explain: "the kernel had no memory for them",
		Fix:     []string{"free memory on the node: /proc/meminfo, and journalctl -k --grep 'page allocation failure'"},
		Settings: []Setting{{Name: "vm.min_free_kbytes", Try: "twice that", Host: true,
			Why: "what is kept for packets that come in while memory is short"}},
	},
	{
		Name: "HDR_TRUNC", Title: "headers missing", Owner: "network",
		Explain: "they ended within their headers",
		Fix:     []string{"find who cuts it: a link with errors, a tunnel, or a sender that makes such packets", onWire},
	},
	{
		Name: "TAP_FILTER", Title: "refused by a tap device's filter", Owner: "platform",
		Explain: "the filter of the tun or tap device that they were to leave by refused them",
		Fix:     []string{"look at the filter that the process behind the device has set: a hypervisor's, or a VPN's"},
	},
	{
		Name: "TAP_TXFILTER", Title: "refused by a tap device's filter", Owner: "platform",
		Explain: "the address filter of the tap device that they were to leave by refused them",
		Fix:     []string{"look inside the virtual machine behind the device at the hardware addresses that it takes (ip link show), and at the hypervisor's filter"},
	},
	{Name: "ICMP_CSUM", WhyNot: ofOthers},
	{Name: "INVALID_PROTO", WhyNot: ofOthers},
	{
		Name: NotOurAddress, Title: "not this host's address", Owner: "network",
		Explain: "they were for an address that is not here, in a network namespace that does not forward: a virtual address that moved, or a wrong route to here",
		Fix: []string{"give the address back, if it should be here: ip address add ADDRESS dev DEVICE (keepalived, a CNI plugin or the cloud's agent do it)",
			"else find who sends it here: an ARP or neighbour entry that is out of date, a route, a load balancer's list"},
		Settings: []Setting{{Name: "net.IPv.conf.DEVICE.forwarding", Try: "1", Only: "0",
			Why: "only where this host is a router for the address (net.ipv4.ip_forward sets it for all devices)"}},
	},
	{
		Name: "IP_INNOROUTES", Title: "no route to its destination", Owner: "network",
		Explain: "they were for an address that this network namespace has no route to",
		Fix: []string{"see what the kernel would do: ip route get ADDRESS from CLIENT iif DEVICE; unreachable, prohibit and blackhole routes say so there",
			"add the route, or give the address back to this host, if it should be here"},
	},
	{
		Name: "IP_LOCAL_SOURCE", Title: "from this host's own address", Owner: "network",
		Explain: "they came from outside with an address of this host as their source",
		Fix: []string{"look for another machine with the same address: arping -D -I DEVICE ADDRESS",
			"or for traffic of this host that comes back: NAT (hairpin) without masquerading, a loop"},
		Settings: []Setting{{Name: "net.ipv4.conf.DEVICE.accept_local", Try: "1", Only: "0",
			With: true,
			Why:  "only where packets of this host are meant to come back in"}},
	},
	{
		Name: "IP_INVALID_SOURCE", Title: "impossible source address", Owner: "client",
		Explain: "their source was no address of a machine: multicast, broadcast or 0.0.0.0/8",
		Fix: []string{
			"find the sender: tcpdump -eni DEVICE shows its hardware address"},
	},
	{
		Name: "IP_LOCALNET", Title: "loopback address from outside", Owner: "node",
		Explain: "they were for 127.0.0.0/8 (or from there), and came by a device that does not take such addresses: mostly after a DNAT rule to 127.0.0.1",
		Settings: []Setting{{Name: "net.ipv4.conf.DEVICE.route_localnet", Try: "1",
			Only: "0", With: true,
			Why: "then guard what listens on loopback: a rule that drops packets for 127.0.0.0/8 from this device which no DNAT changed (ct status dnat)"}},
		Else: []string{"else let the service listen on an address of the device, and send the DNAT there"},
	},
	{
		Name: "IP_INVALID_DEST", Title: "impossible destination", Owner: "network",
		Explain: "their destination was no address of a machine, such as 0.0.0.0/8",
		Fix: []string{
			"look for a NAT rule or a load balancer that has no address to send it to"},
	},
	{
		Name: "PKT_TOO_BIG", Title: "larger than the MTU", Owner: "network",
		Explain: "they were larger than the MTU of the device by which they were to leave, and must not be split",
		Fix:     []string{"let the MTU be the same on the whole way: ip link show; tunnels and overlays take 20 to 80 bytes of it"},
	},
	{
		Name: "DUP_FRAG", Title: "overlapping fragments", Owner: "client",
		Explain: "their fragments overlapped",
		Fix: []string{
			"find the sender: handshakes do not come in fragments, attacks do"},
	},
	{
		Name: "FRAG_REASM_TIMEOUT", Title: "missing fragments", Owner: "network",
		Explain: "some of their fragments never came",
		Fix:     []string{"find out who splits and who drops them: handshakes do not come in fragments"},
	},
	{
		Name: "FRAG_TOO_FAR", Title: "fragments out of order", Owner: "network",
		Explain: "their fragments came too far apart",
		Fix: []string{
			"find out who splits packets: handshakes do not come in fragments"},
		Settings: []Setting{{Name: "net.ipv4.ipfrag_max_dist", Try: "0", Only: "64",
			Why: "0 turns the check off"}},
	},
	{
		Name: "TCP_MINTTL", Title: "TTL below the listener's minimum", Owner: "application",
		Outcomes: Outcomes{OutcomeIngressPolicy, OutcomeAckOtherFreed},
		Part:     "minimum TTL", Shared: true,
		Explain: "their TTL was below what the listener asks for (the socket options IP_MINTTL and IPV6_MINHOPCOUNT): the client is further away",
		Fix:     []string{"lower the server's limit of hops (BGP: ttl-security, gtsm), or remove it, where clients are meant to come from further away"},
	},
	{
		Name: "IPV6_BAD_EXTHDR", Title: "bad IPv6 extension header", Owner: "client",
		Explain: "an IPv6 extension header of theirs was wrong, or is none that this host takes",
		Fix: []string{"find who adds it: the client, a tunnel, segment routing; " +
			onWire},
	},
	{
		Name: "IPV6_TOO_MANY_EXTHDRS", Title: "too many IPv6 extension headers",
		Owner:   "client",
		Explain: "they had more IPv6 extension headers than this host takes",
		Fix: []string{"find who adds them: the client, a tunnel, segment routing; " +
			onWire},
	},
	{Name: "IPV6_NDISC_FRAG", WhyNot: ofNeighbours},
	{Name: "IPV6_NDISC_HOP_LIMIT", WhyNot: ofNeighbours},
	{Name: "IPV6_NDISC_BAD_CODE", WhyNot: ofNeighbours},
	{Name: "IPV6_NDISC_BAD_OPTIONS", WhyNot: ofNeighbours},
	{Name: "IPV6_NDISC_NS_OTHERHOST", WhyNot: ofNeighbours},
	{Name: "QUEUE_PURGE", WhyNot: "of queues that are thrown away whole: no packet by itself",
		NoLoss: true},
	{
		Name: "TC_COOKIE_ERROR", Title: "tc failed", Owner: "platform",
		Explain: "tc could not go on with them after the hardware had begun (out of memory)",
		Fix:     []string{"look at the filters and actions of the device: tc -s filter show dev DEVICE ingress"},
	},
	{Name: "PACKET_SOCK_ERROR", WhyNot: "of copies for packet sockets, such as tcpdump's",
		NoLoss: true},
	{
		Name: "TC_CHAIN_NOTFOUND", Title: "tc chain missing", Owner: "platform",
		Explain: "a tc filter sent them to a chain that does not exist",
		Fix:     []string{"add the chain, or correct the filter that goes to it: tc filter show dev DEVICE ingress"},
	},
	{
		Name: "TC_RECLASSIFY_LOOP", Title: "tc loop", Owner: "platform",
		Explain: "tc filters sent them round and round",
		Fix: []string{
			"correct the filters that reclassify: tc filter show dev DEVICE ingress"},
	},
	{
		Name: "VXLAN_INVALID_HDR", Title: "bad VXLAN header", Owner: "network",
		Explain: "the VXLAN header around them was wrong",
		Fix: []string{
			"compare the extensions (GBP, GPE) of both ends: ip -d link show DEVICE"},
	},
	{
		Name: "VXLAN_VNI_NOT_FOUND", Title: "unknown VXLAN network", Owner: "network",
		Explain: "no VXLAN device has the network number (VNI) that they came with",
		Fix:     []string{"compare the VNI of both ends: ip -d link show type vxlan; the overlay's agent makes these devices"},
	},
	{
		Name: "MAC_INVALID_SOURCE", Title: "impossible hardware address", Owner: "network",
		Explain: "their source hardware address was the device's own, a multicast one, or zero",
		Fix:     []string{"look for a loop in the overlay, and for two machines with one hardware address: bridge fdb show dev DEVICE"},
	},
	{
		Name: "VXLAN_ENTRY_EXISTS", Title: "static VXLAN entry", Owner: "network",
		Explain: "their sender came from another place than the fixed entry for it says",
		Fix:     []string{"correct the entry: bridge fdb show dev DEVICE; the overlay's agent makes them"},
	},
	{
		Name: "NO_TX_TARGET", Title: "no place in the overlay", Owner: "platform",
		Explain: "they were to leave by an overlay (VXLAN) that knows no place for their destination",
		Fix:     []string{"see whether the overlay's agent runs, and what it entered: bridge fdb show; ip -d link show type vxlan"},
	},
	{
		Name: "IP_TUNNEL_ECN", Title: "congestion marks of a tunnel do not fit",
		Owner:   "network",
		Explain: "the tunnel's packets were marked for congestion (ECN), and those inside must not be",
		Fix:     []string{"let both ends of the tunnel treat ECN the same way"},
	},
	{
		Name: "TUNNEL_TXINFO", Title: "tunnel without a destination", Owner: "platform",
		Explain: "they were to leave by a tunnel that is told the other end with each packet, and nobody had told it",
		Fix:     []string{"see who sends packets to the tunnel: routes with encap, tc actions tunnel_key, BPF programs; ip -d link show"},
	},
	{
		Name: "LOCAL_MAC", Title: "own hardware address", Owner: "network",
		Explain: "they came with the hardware address of the device itself as their source",
		Fix:     []string{"look for a loop between switches or bridges, and for two machines with one hardware address"},
	},
	{Name: "ARP_PVLAN_DISABLE", WhyNot: ofOthers},
	{Name: "MAC_IEEE_MAC_CONTROL", WhyNot: ofOthers},
	{
		Name: "BRIDGE_INGRESS_STP_STATE", Title: "bridge port does not forward",
		Owner:   "network",
		Explain: "they came by a bridge port that does not forward (yet)",
		Fix: []string{"see the state of the port: bridge -d link show dev DEVICE; listening and learning end after twice the bridge's forward delay, blocking does not",
			"where no loop is possible, turn the spanning tree off: ip link set BRIDGE type bridge stp_state 0"},
	},
	{Name: "CAN_RX_INVALID_FRAME", WhyNot: ofOthers},
	{Name: "CANFD_RX_INVALID_FRAME", WhyNot: ofOthers},
	{Name: "CANXL_RX_INVALID_FRAME", WhyNot: ofOthers},
	{
		Name: "PFMEMALLOC", Title: "memory kept for emergencies", Owner: "node",
		Explain: "they were received into memory that is kept for emergencies, which only swapping over the network may use",
		Fix:     []string{"free memory on the node: /proc/meminfo, and journalctl -k --grep 'page allocation failure'"},
		Settings: []Setting{{Name: "vm.min_free_kbytes", Try: "twice that", Host: true,
			Why: "what is kept for packets that come in while memory is short"}},
	},
	{
		Name: "PSP_INPUT", Title: "encryption does not fit (PSP)", Owner: "application",
		Explain: "they were encrypted by PSP and should not have been, or the other way round, or with another key",
		Fix:     []string{"compare the PSP associations of both ends: the application sets them on its sockets"},
	},
	{
		Name: "PSP_OUTPUT", Title: "encryption failed (PSP)", Owner: "application",
		Explain: "they were to leave encrypted by PSP, which failed",
		Fix:     []string{"compare the PSP associations with the device that packets leave by: the application sets them on its sockets"},
	},
	{
		Name: "RECURSION_LIMIT", Title: "devices in a circle", Owner: "node",
		Explain: "devices handed them on to each other more often than the kernel allows",
		Fix:     []string{"look for a tunnel that is routed into itself, or a redirect from device to device: ip -d link show; ip route get ADDRESS; tc filter show dev DEVICE ingress"},
	},
	{Name: "MAX", WhyNot: "the end of the list"},
	{Name: "SUBSYS_MASK", WhyNot: "no reason, but a mask"},
}

// What all SYNs have in common that meet a connection of the same addresses and ports.
const (
	metOld     = "the SYNs met an old connection of the same addresses and ports that the server still has"
	challenged = "let the challenge ACK to the client that answers such a SYN, and let its reset back: a client that knows nothing of the connection then tries again; " +
		"a stateful firewall or NAT in between that drops either makes it time out"
	morePorts = "give the clients, or the NAT in front of them, more addresses or source ports, so that none is used again so soon"

	findOutGone = "let the server find out that clients are gone: TCP keepalive or an idle timeout in its own configuration " +
		"(redis: tcp-keepalive; nginx: so_keepalive= in listen; haproxy: option clitcpka; postgres: tcp_keepalives_idle)"
)

// metStates are TCP_INVALID_SYN by the state of the connection, as ss prints it.
var metStates = []Reason{
	{
		Name: "ESTAB", Title: "SYN on an established connection", Owner: "client",
		Explain: "the SYNs met an established connection of the same addresses and ports: its client lost its state, or another one behind the same NAT uses the port again",
		Fix:     []string{challenged, findOutGone},
		Settings: []Setting{{Name: "net.ipv4.tcp_keepalive_time", Try: "300", Only: "7200",
			Why: "in seconds until an idle connection is asked; it counts for sockets with SO_KEEPALIVE and no time of their own"}},
		Else: []string{morePorts},
	},
	{
		Name: "CLOSE-WAIT", Title: "SYN on a connection that the server never closed",
		Owner:   "application",
		Explain: "the SYNs met a connection of the same addresses and ports in CLOSE-WAIT: its client had closed it, and the server's process has not",
		Fix: []string{"close connections whose client has closed: read() returns 0, and close() is to follow; ss -tnp state close-wait lists those that are left",
			challenged},
	},
	{
		Name: "FIN-WAIT-1", Title: "SYN on a connection that is being closed",
		Owner:   "network",
		Explain: "the SYNs met a connection of the same addresses and ports in FIN-WAIT-1: the server had closed it, and the client never acknowledged that",
		Fix:     []string{challenged},
		Settings: []Setting{{Name: "net.ipv4.tcp_orphan_retries", Try: "3", Only: "0",
			Why: "how often the end is sent again for a connection that no process has; 0 stands for 8"}},
		Else: []string{morePorts},
	},
	{
		Name: "FIN-WAIT-2", Title: "SYN on a connection that is being closed",
		Owner:   "client",
		Explain: "the SYNs met a connection of the same addresses and ports in FIN-WAIT-2: the server had closed it, and the client has not",
		Fix:     []string{"let clients close connections that the server has closed, before they use the port again", challenged},
		Settings: []Setting{{Name: "net.ipv4.tcp_fin_timeout", Try: "15", Only: "60",
			Why: "in seconds, for connections that no process has"}},
	},
	{
		Name: "LAST-ACK", Title: "SYN on a connection that is being closed",
		Owner:   "network",
		Explain: "the SYNs met a connection of the same addresses and ports in LAST-ACK: both sides had closed it, and the client's last ACK never came",
		Fix:     []string{challenged},
		Settings: []Setting{{Name: "net.ipv4.tcp_orphan_retries", Try: "3", Only: "0",
			Why: "how often the end is sent again for a connection that no process has; 0 stands for 8"}},
		Else: []string{morePorts},
	},
	{
		Name: "CLOSING", Title: "SYN on a connection that is being closed",
		Owner:   "network",
		Explain: "the SYNs met a connection of the same addresses and ports in CLOSING: both sides closed at once, and the client's last ACK never came",
		Fix:     []string{challenged},
		Else:    []string{morePorts},
	},
}

// timeWaitSequence is what is said of a TIME_WAIT that refused a SYN without saying PAWS, by a
// kernel that would have.
var timeWaitSequence = Reason{
	Name: "", Title: "TIME_WAIT, older sequence number", Owner: "client",
	Explain: "the SYNs' sequence number was not above that of the connection in TIME_WAIT on the same addresses and ports, and no newer TCP timestamp spoke for them",
	Fix: []string{"let clients use more addresses or source ports, or keep connections open",
		"let both ends use TCP timestamps (at a Linux client net.ipv4.tcp_timestamps=1): a SYN with a newer one is taken, whatever its sequence number",
		"let clients close first: TIME_WAIT is then theirs"},
	Settings: []Setting{{Name: "net.ipv4.tcp_timestamps", Try: "1", Only: "0",
		Why: "a SYN with a newer timestamp is taken, whatever its sequence number"}},
}

// routeRefused is what is said of kernels that free without a reason where the route was looked up:
// until 6.14 or so.
var routeRefused = Reason{
	Title: "refused by the route lookup", Owner: "network",
	Explain: "the lookup of their route refused them: their source is an address of this host or none of a machine's, the way back to it uses another device, they came from or for 127.0.0.0/8, or they were for an address that is not here",
	Fix: []string{"see what the kernel says: ip route get ADDRESS from CLIENT iif DEVICE; and let it log such packets: net.ipv4.conf.all.log_martians=1, then journalctl -k --grep martian",
		"give the address back, if it should be here: ip address add ADDRESS dev DEVICE"},
	Settings: []Setting{
		{Name: "net.ipv4.conf.DEVICE.rp_filter", Try: "2", Only: "1", With: true,
			Why: "where the way back uses another device; 2 takes what has any route back"},
		{Name: "net.ipv4.conf.DEVICE.accept_local", Try: "1", Only: "0", With: true,
			Why: "only where its source is an address of this host, and meant to be"},
		{Name: "net.ipv4.conf.DEVICE.forwarding", Try: "1", Only: "0",
			Why: "only where this host is a router for the address"},
	},
}

// sourceRouted is what is said of those that free there without a reason later: an IP option is
// looked at next.
var sourceRouted = Reason{
	Title: "source route refused", Owner: "client",
	Explain: "they had an IP option that names routers on their way (source route), which this host does not take",
	Fix:     []string{"find the sender: tcpdump -vni DEVICE shows the option (SSRR or LSRR); attacks have it, and old test programs"},
	Settings: []Setting{{Name: "net.ipv4.conf.DEVICE.accept_source_route", Try: "1", Only: "0",
		Why: "only where such routes are meant; both this and conf.all have to be 1"}},
}

// notForTCP is what is said where TCP frees before it looks for a socket, and gives no reason.
var notForTCP = Reason{
	Title: "nothing for TCP", Owner: "network",
	Explain: "they came in frames for many, which TCP does not take, or they ended within their TCP header",
	Fix: []string{"look at the hardware address that the frames are for: tcpdump -eni DEVICE; load balancers in multicast mode send to many",
		"or find who cuts packets: a link with errors, a tunnel, or a sender that makes such"},
}

// TellingReasons are reasons that tell something where they are missing, if the kernel has them.
func TellingReasons() []string {
	return []string{"TCP_RFC7323_TW_PAWS", "TCP_INVALID_SYN", "IP_LOCALNET"}
}

// ReasonFor finds what is said about a packet that died, by the kernel's reason, by the function
// that freed it where that is all there is, and by the state of the connection that it met. tells
// says which of [TellingReasons] the kernel has.
func ReasonFor(cause Cause, k Kernel, loopback bool, met string, tells func(string) bool,
) (r Reason, ok bool) {
	switch {
	case k.Reason == "TCP_INVALID_SYN" && met != "":
		for _, r := range metStates {
			if r.Name == met {
				return r, true
			}
		}
	case cause == CauseTimeWait && k.Reason != "TCP_RFC7323_TW_PAWS":
		return timeWaitSequence, tells("TCP_RFC7323_TW_PAWS")
	case cause == CauseKernelOther && (k.Reason == "" || k.Reason == "NOT_SPECIFIED" ||
		k.Reason == "UNHANDLED_PROTO"):
		if r, ok := reasonOfFunction(k, loopback, tells); ok {
			return r, true
		}
	}
	r, ok = ReasonOf(k.Reason)
	return r, ok && r.WhyNot == ""
}

// reasonOfFunction goes by who freed the packet where the reason says little.
func reasonOfFunction(k Kernel, loopback bool, tells func(string) bool) (Reason, bool) {
	function, _, _ := strings.Cut(k.Function, ".") // as the compiler may have named its copy
	switch {
	case function == "ip6_tlvopt_unknown":
		return ReasonOf("IPV6_BAD_EXTHDR")
	case k.Reason == "UNHANDLED_PROTO":
	case function == "ip6_forward":
		return ReasonOf("IP_INADDRERRORS")
	case k.Reason != "" && (function == "tcp_v4_rcv" || function == "tcp_v6_rcv"):
		return notForTCP, true
	case function != "ip_rcv_finish_core" && function != "ip_rcv_finish":
	case tells("IP_LOCALNET"):
		return sourceRouted, true
	case loopback:
		return ReasonOf("IP_LOCALNET")
	default:
		return routeRefused, true
	}
	return Reason{}, false
}

// NotOurAddress is the reason that the kernel gives where it takes an address for none of its own.
const NotOurAddress = "IP_INADDRERRORS"

// KeptFromAddress is what that reason says where the address is on a device after all: its route
// was not asked, or is gone.
func KeptFromAddress() Reason {
	return Reason{
		Name: "KEPT_FROM_ADDRESS", Title: "address here, but not delivered to",
		Owner:   "node",
		Explain: "they were for an address that is on a device here, and a routing rule, or a local route that is missing, keeps packets from it",
		Fix: []string{"see what the kernel does with them: ip route get ADDRESS from CLIENT iif DEVICE",
			"look for a rule of blackhole, unreachable or prohibit, or one before that of table local: ip rule show",
			"see whether the address has its route: ip route show table local; if not, take the address off the device and add it again"},
	}
}

// SynOnConnection says what to do about SYNs that meet a connection of the same addresses and
// ports.
func SynOnConnection() []string { return []string{challenged, findOutGone, morePorts} }

// Reasons lists all reasons. The caller must not change it.
func Reasons() []Reason { return reasons }

// families are beginnings of names: a reason that is not in the table yet means what its kind does.
var families = []struct{ prefix, like string }{
	{"TCP_MD5", "TCP_MD5FAILURE"}, {"TCP_AO", "TCP_AOFAILURE"}, {"TCP_AUTH", "TCP_AUTH_HDR"},
	{"QDISC_", "QDISC_DROP"}, {"FQ_", "FQ_BAND_LIMIT"}, {"NEIGH_", "NEIGH_FAILED"},
}

// OutcomesOf returns what a drop reason means for a handshake, by its name as records carry it.
func OutcomesOf(name string) Outcomes {
	r, _ := ReasonLike(name)
	if r.Outcomes == (Outcomes{}) && !r.NoLoss {
		return anyLoss
	}
	return r.Outcomes
}

// ReasonLike finds the row of a drop reason, or one of its kind.
func ReasonLike(name string) (Reason, bool) {
	r, known := ReasonOf(name)
	for _, f := range families {
		if !known && strings.HasPrefix(name, f.prefix) {
			return ReasonOf(f.like)
		}
	}
	return r, known
}

// ReasonOf finds what is said about a drop reason, by its name as records carry it.
func ReasonOf(name string) (Reason, bool) {
	for _, r := range reasons {
		if r.Name == name {
			return r, true
		}
	}
	return Reason{}, false
}
