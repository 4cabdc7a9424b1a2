// SPDX-License-Identifier: Apache-2.0

// Package evidence is what was seen in a window, as it was collected, and the questions that it
// answers by itself. What was not collected is nil or listed in Missing.
package evidence

import (
	"net/netip"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// Evidence is everything that one window showed, after the filters. It is plain data, can be
// written as JSON, and a nil pointer means "not known", never zero.
type Evidence struct {
	Start    event.Time `json:"start,omitzero"`
	WindowMs uint64     `json:"window_ms"`
	// Filter is what the user asked for, as text; empty for everything. Ports are those it
	// names.
	Filter string   `json:"filter,omitempty"`
	Ports  []uint16 `json:"ports,omitempty"`
	// OneNetNS says that one network namespace was looked at, and not the others on this
	// kernel.
	OneNetNS bool `json:"one_netns,omitempty"`

	Counts   []event.Count     `json:"counts,omitempty"` // of the whole window
	Ledger   []event.LedgerRow `json:"ledger,omitempty"`
	Balanced *bool             `json:"balanced,omitempty"`
	// Overflow is what synspy's tables had no room for. OverflowAside says that what the
	// filters ask for had room.
	Overflow      *event.Overflow `json:"overflow,omitempty"`
	OverflowAside bool            `json:"overflow_aside,omitempty"`

	Listeners []Listener `json:"listeners,omitempty"` // those matched, also ones that closed
	// GroupSyns came to those Listeners whose Syns are not known because they share ports by
	// SO_REUSEPORT: to all of them together.
	GroupSyns *uint64 `json:"group_syns,omitempty"`
	// GroupFinished is how many of their handshakes were finished, likewise.
	GroupFinished *uint64     `json:"group_finished,omitempty"`
	Elsewhere     []Elsewhere `json:"elsewhere,omitempty"` // on the ports of SYNs that found no listener
	Ingress       []Death     `json:"ingress,omitempty"`   // what died before any listener
	Reasoned      []Death     `json:"reasoned,omitempty"`  // what died at one, and of which the kernel gave a reason
	// Tells are those of [event.TellingReasons] that the kernel has: what it frees without them
	// did not die of them.
	Tells   []string `json:"tells,omitempty"`
	Devices []Device `json:"devices,omitempty"` // with programs, of the namespaces concerned; the nearest to the listeners first
	// Diversions are where rules send what is for the ports asked about, Doubts what else may
	// send it where it is not looked for; Others are listeners on other ports of the same
	// namespaces that dropped in the window.
	Diversions []Diversion `json:"diversions,omitempty"`
	Doubts     []Doubt     `json:"doubts,omitempty"`
	Others     []Other     `json:"others,omitempty"`
	// Forwarded are the namespaces watched that passed packets on in the window.
	Forwarded []Forwarded `json:"forwarded,omitempty"`
	// DevicesRead is how many devices were asked for their programs, nil where none was.
	DevicesRead *uint64             `json:"devices_read,omitempty"`
	Clients     []event.ClientCount `json:"clients,omitempty"` // most drops first, bounded by the collector
	// ClientsSeen is how many different client addresses there were in all.
	ClientsSeen *uint64 `json:"clients_seen,omitempty"`

	Conntrack []Conntrack    `json:"conntrack,omitempty"`
	Queues    []PacketQueue  `json:"queues,omitempty"`
	Rules     []FirewallRule `json:"rules,omitempty"` // whose counters moved, most first
	// Strays are seen only once handshakes go unanswered, or nothing arrives, for StraysMs; nil
	// where they were not watched.
	Strays   []Stray `json:"strays,omitempty"`
	StraysMs *uint64 `json:"strays_ms,omitempty"`

	// Closely is when threads were looked at closely: from the first sign of trouble on. Nil
	// where they never were, or always.
	Closely []Span `json:"closely,omitempty"`

	Files   Files `json:"files,omitzero"` // of the machine, while a queue stood full
	Missing []Gap `json:"missing,omitempty"`
	// LeftOut says what the input lacks for its having been filtered before; empty where it was
	// not.
	LeftOut string `json:"left_out,omitempty"`
	// Narrowed says that Counts leave out packets of these listeners that Syns has: by address,
	// client, cause or stage.
	Narrowed bool `json:"narrowed,omitempty"`
	// Unsure packets died without a record of their own, and whether the filter asks for them
	// is not known; they are in no other number.
	Unsure uint64 `json:"unsure,omitempty"`
	// Differs is of how many packets a recording's records do not say what its summary says.
	Differs uint64 `json:"differs,omitempty"`
	// Silence says why it proves nothing that nothing was seen to be dropped; empty where it
	// does.
	Silence string `json:"silence,omitempty"`
}

// Need is a kind of evidence that findings rest on.
type Need string

// The kinds. A collector lists in Evidence.Missing those it could not have.
const (
	NeedSyns      Need = "syns"      // SYNs counted per listener
	NeedAccepts   Need = "accepts"   // accepts counted per listener
	NeedTimeline  Need = "timeline"  // the queues over time
	NeedThreads   Need = "threads"   // samples of the accepting threads
	NeedCalls     Need = "calls"     // the system calls they were in, and on which sockets: they say which threads accept, too
	NeedFailures  Need = "failures"  // what accept() returned instead of a connection
	NeedStacks    Need = "stacks"    // the stacks they slept with
	NeedOwners    Need = "owners"    // who holds the listener
	NeedOnCPU     Need = "on_cpu"    // samples of where they ran
	NeedCPU       Need = "cpu"       // run delay
	NeedThrottled Need = "throttled" // CPU throttling of their cgroups
	NeedSysctls   Need = "sysctls"   // of the listener's namespace
	NeedMembers   Need = "members"   // each socket of a SO_REUSEPORT group
	NeedSynAcks   Need = "syn_acks"  // SYN-ACKs sent again
	NeedWayOut    Need = "way_out"   // SYN-ACKs dropped on the way out
	NeedIngress   Need = "ingress"   // deaths before the listener
	NeedDevices   Need = "devices"   // XDP and tc programs
	NeedForwarded Need = "forwarded" // packets passed on, which come to no listener
	NeedDivision  Need = "division"  // which socket of a SO_REUSEPORT group each SYN and connection came to
)

// Gap is evidence that the input does not have. It was refused if By says by what; else it is not
// there.
type Gap struct {
	Need Need   `json:"need"`
	Why  string `json:"why"` // "a file of records has no thread samples"
	// By names what it takes to be let have it: "CAP_SYS_PTRACE", a limit, a setting of the
	// kernel.
	By []string `json:"by,omitempty"`
	// PIDs are the processes of which it was refused, empty for all.
	PIDs []uint32 `json:"pids,omitempty"`
}

// Listener is what was seen of one listening socket.
type Listener struct {
	// ID identifies it; its queues are those last seen.
	ID        event.Listener  `json:"id"`
	Processes []event.Process `json:"processes,omitempty"`
	Counts    []event.Count   `json:"counts,omitempty"`

	Syns    *uint64 `json:"syns,omitempty"`
	Accepts *uint64 `json:"accepts,omitempty"`
	Cookies *uint64 `json:"cookies,omitempty"` // SYN cookies sent
	// SynAcksAgain is how many SYN-ACKs were sent again; SynsAgain, how many SYNs came again
	// for a handshake that had been answered; Finished, how many final ACKs came.
	SynAcksAgain *uint64 `json:"syn_acks_again,omitempty"`
	SynsAgain    *uint64 `json:"syns_again,omitempty"`
	Finished     *uint64 `json:"finished,omitempty"`
	// Unsent is how many handshakes of those that expired were given up by an early timer:
	// their SYN-ACK could not be sent again. At least so many: what the rate limit held back
	// does not tell.
	Unsent *uint64 `json:"unsent,omitempty"`
	// Late is how many of the finished had a SYN dropped before.
	Late *uint64 `json:"late,omitempty"`
	// HalfOpenBefore is how many handshakes were half-open when the window began; ID.SynQueue
	// has those at its end.
	HalfOpenBefore *uint64   `json:"half_open_before,omitempty"`
	BadAcks        BadAcks   `json:"bad_acks,omitzero"`
	Deferred       *Deferred `json:"deferred,omitempty"` // nil where it was not looked at
	// AskedBacklog is the argument of listen(), known only where the socket was seen to open:
	// the kernel keeps the smaller of it and somaxconn.
	AskedBacklog *uint32 `json:"asked_backlog,omitempty"`

	// StepMs is what a point of Timeline covers; the points follow each other without gaps, the
	// first at the start.
	StepMs   uint32                `json:"step_ms,omitempty"`
	Timeline []event.TimelinePoint `json:"timeline,omitempty"`
	// PeakAccepts is the quickest that it accepted between two readings, in connections a step.
	// Timeline does not show it where the readings fell into the middle of its steps.
	PeakAccepts uint64 `json:"peak_accepts,omitempty"`
	// RetriesCounted says that the retries of Timeline are all there were, those that got
	// through as well as those dropped again.
	RetriesCounted bool `json:"retries_told,omitempty"`
	// LongestGapMs is the longest time without an accept while the queue held something.
	LongestGapMs *uint64        `json:"longest_gap_ms,omitempty"`
	Waits        []event.Bucket `json:"waits,omitempty"`

	Sysctls Sysctls  `json:"sysctls,omitzero"`
	HostNet bool     `json:"host_net,omitempty"` // it is in the machine's first network namespace
	Threads []Thread `json:"threads,omitempty"`
	Cgroups []CPU    `json:"cgroups,omitempty"` // of the accepting processes
	// AcceptFailures are accept() calls that returned no connection for want of something;
	// Descriptors, how many its processes had open. Both are looked for only while its queue is
	// full and nothing leaves it.
	AcceptFailures []AcceptFailure `json:"accept_failures,omitempty"`
	Descriptors    []Descriptors   `json:"descriptors,omitempty"`
	Frozen         []string        `json:"frozen,omitempty"`    // cgroups that were frozen with one of its processes in them
	FrozenBy       []string        `json:"frozen_by,omitempty"` // the files that were written to for it: cgroup.freeze or freezer.state
	Members        []Member        `json:"members,omitempty"`   // of its SO_REUSEPORT group, itself included
	Missing        []Gap           `json:"missing,omitempty"`   // of this listener, beside those of the whole window

	// ClosedMs is when it was closed, since the start; ReplacedBy is the socket that then
	// listened there.
	ClosedMs   *uint64         `json:"closed_ms,omitempty"`
	ReplacedBy *event.Listener `json:"replaced_by,omitempty"`
}

// BadAcks splits what died as a bad handshake packet, where its records say how: the rest
// ended no handshake.
type BadAcks struct {
	// ByClient are handshakes that an RST of the client ended which fits: it had the SYN-ACK,
	// and wanted no connection, or no more. ClientAgain are those of them whose SYN came again
	// after it, and was ended so again.
	ByClient    uint64 `json:"by_client,omitempty"`
	ClientAgain uint64 `json:"client_again,omitempty"`
	// ByServer are those that were ended by another packet, and reset.
	ByServer uint64 `json:"by_server,omitempty"`

	clients map[event.Endpoint]bool // that ended one
}

// Deferred is how handshakes fared whose ACK TCP_DEFER_ACCEPT ignored.
type Deferred struct {
	Watched   uint64 `json:"watched"`         // of which it is known
	Held      uint64 `json:"held"`            // half-open for heldMs and more after it: the client sent nothing
	AtEnd     uint64 `json:"at_end"`          // of these, still half-open at the end
	Young     uint64 `json:"young,omitempty"` // not among the watched: half-open at the end, for less than heldMs
	LongestMs uint64 `json:"longest_ms"`      // the longest that one was held, as far as it was seen
}

// Sysctls are those of a network namespace, by what they hold; nil where unread.
type Sysctls struct {
	Syncookies      *uint32 `json:"tcp_syncookies,omitempty"`
	MaxSynBacklog   *uint32 `json:"tcp_max_syn_backlog,omitempty"`
	Somaxconn       *uint32 `json:"somaxconn,omitempty"`
	AbortOnOverflow *uint32 `json:"tcp_abort_on_overflow,omitempty"`
	SynackRetries   *uint32 `json:"tcp_synack_retries,omitempty"`
}

// Thread is a thread of a process that holds the listener. Acceptor says that it accepted from it,
// or was seen waiting to; where no thread is known to, the rules look at all threads of the
// processes that fit best.
type Thread struct {
	PID      uint32   `json:"pid"`
	TID      uint32   `json:"tid"`
	Comm     string   `json:"comm,omitempty"`
	Acceptor bool     `json:"acceptor,omitempty"`
	Alone    bool     `json:"alone,omitempty"`   // Acceptor only because its process has no other thread
	Samples  []Sample `json:"samples,omitempty"` // in time order
}

// Sample is a thread at one moment.
type Sample struct {
	OffsetMs uint32 `json:"offset_ms"`
	State    string `json:"state,omitempty"`  // R, S, D, T, t as /proc/PID/stat has it
	Frozen   bool   `json:"frozen,omitempty"` // its cgroup was frozen
	// Syscall is the call it was in, by name; empty in user space, or where that is unknown.
	Syscall string `json:"syscall,omitempty"`
	// Polls reports whether that call would end by a connection at the listener: false where it
	// is accept() of another socket, or an epoll instance without it; nil where that is not
	// known, or it is no call that waits for connections.
	Polls *bool `json:"polls,omitempty"`
	// Calm says that threads had not been looked at closely until then: RunMs and DelayMs are
	// of a time too long to say anything about the moment.
	Calm bool `json:"calm,omitempty"`
	// OnCPU says that its state is R and its stack one that a profiler saw it running in.
	OnCPU bool `json:"on_cpu,omitempty"`
	// RunMs and DelayMs are how long it ran, and was ready without a CPU, since its sample
	// before.
	RunMs   *float64 `json:"run_ms,omitempty"`
	DelayMs *float64 `json:"delay_ms,omitempty"`
	Kernel  []string `json:"kernel,omitempty"` // innermost first
	User    []string `json:"user,omitempty"`
}

// AcceptFailure counts calls of accept() that returned an error.
type AcceptFailure struct {
	PID   uint32 `json:"pid"`
	Errno string `json:"errno"` // EMFILE, ENFILE, ENOBUFS or ENOMEM
	Count uint64 `json:"count"`
}

// Descriptors is how many file descriptors a process had open when most were, or when all were in
// use.
type Descriptors struct {
	PID   uint32 `json:"pid"`
	Open  uint64 `json:"open"`
	Limit uint64 `json:"limit"` // RLIMIT_NOFILE
	// Full is in how many of the Readings each number below the limit was in use: then accept()
	// fails.
	Readings uint64 `json:"readings"`
	Full     uint64 `json:"full"`
}

// Files is how many files the machine had open, and may have: fs.file-nr. Zeros where it was not
// read.
type Files struct {
	Open uint64 `json:"open,omitempty"`
	Max  uint64 `json:"max,omitempty"`
}

// CPU is how a cgroup's CPU time was limited in the window.
type CPU struct {
	Cgroup event.Cgroup `json:"cgroup"`
	Dir    string       `json:"dir,omitempty"` // where that is mounted
	V1     bool         `json:"v1,omitempty"`  // it is of a hierarchy of version 1
	// QuotaUs of each PeriodUs; nil for no limit, or an unknown one.
	QuotaUs     *uint64 `json:"quota_us,omitempty"`
	PeriodUs    *uint64 `json:"period_us,omitempty"`
	Periods     uint64  `json:"periods"`      // nr_periods' growth
	Throttled   uint64  `json:"throttled"`    // nr_throttled's
	ThrottledMs float64 `json:"throttled_ms"` // throttled_usec's, summed over CPUs as the kernel does
	// Spans are when it was throttled: readings between which throttled_usec grew.
	Spans []Span `json:"spans,omitempty"`
}

// Span is a time in the window, in milliseconds since its start.
type Span struct {
	FromMs uint32 `json:"from_ms"`
	ToMs   uint32 `json:"to_ms"`
}

// Within reports whether one of the spans has an offset, in milliseconds since the window's start.
func Within(spans []Span, offset uint32) bool {
	return slices.ContainsFunc(spans, func(s Span) bool {
		return s.FromMs <= offset &&
			offset <= s.ToMs
	})
}

// Member is one socket of a SO_REUSEPORT group.
type Member struct {
	Listener  event.Listener  `json:"listener"`
	Processes []event.Process `json:"processes,omitempty"`
	Dropped   *uint64         `json:"dropped,omitempty"` // of its accept queue
	Accepts   *uint64         `json:"accepts,omitempty"`
	// FullMs is how long its queue was full, BusiestLen the longest it was.
	FullMs     *uint64 `json:"full_ms,omitempty"`
	BusiestLen *uint32 `json:"busiest_len,omitempty"`
}

// Death is what died of one kind at one place.
type Death struct {
	Cause  event.Cause    `json:"cause"`
	Action event.Action   `json:"action,omitzero"`
	Server event.Endpoint `json:"server,omitzero"`
	NetNS  uint64         `json:"netns,omitempty"`
	Own    bool           `json:"own,omitempty"`    // that is synspy's own
	Enter  Enter          `json:"enter,omitzero"`   // how it is entered
	Device string         `json:"device,omitempty"` // that it came in by
	VRF    bool           `json:"vrf,omitempty"`    // which is a VRF
	// Here says whether the address that it was for is on a device of the namespace; nil where
	// that was not read.
	Here   *bool        `json:"here,omitempty"`
	Kernel event.Kernel `json:"kernel,omitzero"`
	Count  uint64       `json:"count"`
	// Met is the connection that SYNs met, its inode zero; Holders are the processes that had
	// such ones open.
	Met     *event.Connection `json:"met,omitempty"`
	Holders []event.Process   `json:"holders,omitempty"`
	// HoldersUnread is how many processes could not be asked whether they have.
	HoldersUnread uint64 `json:"holders_unread,omitempty"`
	// Sysctls are the present values of those that decide about it, by name.
	Sysctls map[string]string `json:"sysctls,omitempty"`
}

// Elsewhere is a listener that has the port of SYNs which found none: it takes other packets, or is
// in another namespace.
type Elsewhere struct {
	Listener  event.Listener  `json:"listener"`
	Processes []event.Process `json:"processes,omitempty"`
	Own       bool            `json:"own,omitempty"`     // its namespace is synspy's own
	Enter     Enter           `json:"enter,omitzero"`    // how that is entered
	V6Only    *bool           `json:"v6_only,omitempty"` // of IPv6 sockets
	Device    string          `json:"device,omitempty"`  // that it is bound to
	VRF       bool            `json:"vrf,omitempty"`     // which is one of a VRF's, or the VRF
	// Throughout says that it listened from the beginning of the window to its end.
	Throughout bool `json:"throughout,omitempty"`
}

// Diversion is where a rule sends SYNs that are for a port asked about, or where connections to it
// were seen to go.
type Diversion struct {
	By    string `json:"by"`             // "redirect rule in table ip nat, chain PREROUTING", "connection tracking"
	NetNS uint64 `json:"netns"`          // of the rule
	Own   bool   `json:"own,omitempty"`  // that is synspy's own
	Enter Enter  `json:"enter,omitzero"` // how that is entered
	// Transparent says that the packet stays as it is (TPROXY).
	Transparent bool `json:"transparent,omitempty"`
	// From is what clients ask for, To who gets it; an address that is not valid is any, or one
	// of this host's.
	From netip.AddrPort `json:"from"`
	To   netip.AddrPort `json:"to"`
	// Connections were tracked on that way when the window ended; Proven says that clients
	// whose SYNs died were among them.
	Connections uint64 `json:"connections,omitempty"`
	Proven      bool   `json:"proven,omitempty"`
}

// Doubt is what may send SYNs that are for a port asked about to where they are not looked for.
type Doubt struct {
	NetNS uint64 `json:"netns,omitempty"` // 0 where it is about none
	Own   bool   `json:"own,omitempty"`
	Enter Enter  `json:"enter,omitzero"`
	Why   string `json:"why"`
}

// Other is a listener on a port that was not asked about which dropped packets in the window, or
// was full at its end.
type Other struct {
	Listener  event.Listener  `json:"listener"`
	Own       bool            `json:"own,omitempty"`
	Enter     Enter           `json:"enter,omitzero"`
	Processes []event.Process `json:"processes,omitempty"`
	Drops     *uint64         `json:"drops,omitempty"`
}

// Forwarded is how many packets a network namespace passed on (IpForwDatagrams and
// Ip6OutForwDatagrams), and how many IPVS took in there, which those need not have.
type Forwarded struct {
	NetNS   uint64 `json:"netns"`
	Own     bool   `json:"own,omitempty"` // that is synspy's own
	Enter   Enter  `json:"enter,omitzero"`
	Before  bool   `json:"before,omitempty"` // packets may come through it to the only one asked about
	Packets uint64 `json:"packets"`
	IPVS    uint64 `json:"ipvs,omitempty"`
}

// Device is a network device with the programs that see packets before the IP stack does.
type Device struct {
	Name     string    `json:"name"`
	NetNS    uint64    `json:"netns,omitempty"` // 0 for synspy's own
	Enter    Enter     `json:"enter,omitzero"`  // how that is entered
	Programs []Program `json:"programs"`
}

// Program is a BPF program on a device, or another tc filter, one whose action is to drop or to
// redirect.
type Program struct {
	Hook   string `json:"hook"` // "native XDP", "tc ingress"
	ID     uint32 `json:"id,omitempty"`
	Name   string `json:"name,omitempty"`
	Filter string `json:"filter,omitempty"` // its kind: "flower"
	// Redirect says that the filter sends packets to another device, and does not drop them.
	Redirect bool `json:"redirect,omitempty"`
}

// Conntrack is what connection tracking counted in a network namespace in the window, and its table
// at the end.
type Conntrack struct {
	NetNS uint64 `json:"netns"`
	Count uint32 `json:"count"`
	Max   uint32 `json:"max"`
	// Buckets of the hash table, which all namespaces of the machine share; absent where it is
	// not shown.
	Buckets uint32 `json:"buckets,omitempty"`
	// Drops are packets that it dropped itself, of any kind: InsertFailed of them since their
	// entry could not be inserted.
	Drops        uint64 `json:"drops"`
	EarlyDrops   uint64 `json:"early_drops,omitempty"` // entries thrown out to make room
	InsertFailed uint64 `json:"insert_failed,omitempty"`
}

// PacketQueue is a queue of netfilter's (NFQUEUE) that a program had open at the end of the window.
type PacketQueue struct {
	NetNS   uint64 `json:"netns"`
	Number  uint32 `json:"number"`
	PortID  uint32 `json:"port_id,omitempty"`
	Comm    string `json:"comm,omitempty"` // of the process of that number, which most often is the reader
	Waiting uint64 `json:"waiting"`        // packets without a verdict
}

// FirewallRule is a rule that drops or rejects, and by how much its counter moved in the window:
// packets of any kind.
type FirewallRule struct {
	NetNS   uint64 `json:"netns"`
	Family  string `json:"family"`
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Handle  uint64 `json:"handle"`
	Packets uint64 `json:"packets"`
}

// Stray is packets that this host freed where no drop is counted: SYN-ACKs on their way out, SYNs
// in frames for another host, clients' segments without SYN that netfilter, tc or XDP dropped, or
// SYNs to the only network namespace asked about that died in another one.
type Stray struct {
	Answer  bool           `json:"answer,omitempty"`  // a SYN-ACK; if it is none of these, such a frame
	Segment bool           `json:"segment,omitempty"` // a handshake's ACK, or a later one
	Syn     bool           `json:"syn,omitempty"`     // on its way to the namespace asked about
	Server  event.Endpoint `json:"server"`            // the listener's end
	NetNS   uint64         `json:"netns,omitempty"`   // where it was freed
	From    uint64         `json:"from,omitempty"`    // namespace that sent an answer, or that a segment is for; 0 where several may have, or another host
	Enter   Enter          `json:"enter,omitzero"`    // how that is entered
	Own     bool           `json:"own,omitempty"`     // it is synspy's own namespace
	Device  string         `json:"device,omitempty"`  // that it was on; empty: it had none yet, or that is not known
	// MAC is the one that a frame was for, OwnMAC the device's.
	MAC    string       `json:"mac,omitempty"`
	OwnMAC string       `json:"own_mac,omitempty"`
	Kernel event.Kernel `json:"kernel,omitzero"`
	Count  uint64       `json:"count"`
}

// Enter is how a network namespace can be entered: by its name below /run/netns, or through a
// process in it.
type Enter struct {
	Name string `json:"name,omitempty"`
	PID  uint32 `json:"pid,omitempty"`
}
