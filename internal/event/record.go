// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"net/netip"
	"path"
)

// SchemaVersion is the "v" of every record. Fields are only ever added in it.
const SchemaVersion = 1

// Header starts every record.
type Header struct {
	V    int    `json:"v"`
	Type string `json:"type"`
}

// Head returns the header of a record of the given type.
func Head(kind string) Header { return Header{V: SchemaVersion, Type: kind} }

// Ready is written once the hooks are attached and the ledger is open. Rate is
// the limit in records per second, listener and cause; zero for none. What
// Filters did not let through has no records; they are those of the trace, and those
// given when its records were read from a file.
type Ready struct {
	Header
	Origin
	Time    Time   `json:"time,omitzero"`
	Backend string `json:"backend,omitempty"`
	Kernel  string `json:"kernel,omitempty"`
	Rate    uint32 `json:"rate,omitempty"`

	Filters []Filter `json:"filters,omitempty"`
	Hooks   []Hook   `json:"hooks"`
}

// Hook is one attachment of the plan.
type Hook struct {
	Name     string `json:"name"`
	Backend  string `json:"backend"`
	Attached bool   `json:"attached"`
	Note     string `json:"note,omitempty"`
	// Blind is what is not told for want of it, or of what it lacks on this kernel.
	Blind []Blind `json:"blind,omitempty"`
}

// Endpoint is one end of a connection.
type Endpoint struct {
	Addr netip.Addr `json:"addr,omitzero"`
	Port uint16     `json:"port"`
}

// Kernel is what proves a cause. Hook is the netfilter hook at which a packet died:
// ingress, prerouting, input, forward, postrouting or egress; "ingress or prerouting" where
// no more is known than that it had no route yet. Family is netdev or bridge, empty where the
// hook's rules may be of ip, ip6 or inet. Refusal is what answered the packet: "tcp reset",
// "icmp port-unreachable".
type Kernel struct {
	Function string   `json:"function,omitempty"`
	Counters []string `json:"counters,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Hook     string   `json:"hook,omitempty"`
	Family   string   `json:"family,omitempty"`
	Refusal  string   `json:"refusal,omitempty"`
}

// Device is the network device that a packet came in by, in the namespace where it died:
// known of those that died before any listener.
type Device struct {
	Index uint32 `json:"index,omitempty"`
	Name  string `json:"name,omitempty"`
}

// Connection is what a SYN of the same addresses and ports met. Inode is that of its
// socket, zero and absent where no process has it.
type Connection struct {
	State string `json:"state,omitempty"` // as ss prints it: "ESTAB"
	Inode uint64 `json:"inode,omitempty"`
}

// Queue is a queue's length and limit at the drop, in sockets. The kernel
// calls a queue full when len > limit.
type Queue struct {
	Len   uint32 `json:"len"`
	Limit uint32 `json:"limit"`
}

// SynQueue is the queue of half-open handshakes. Young ones have not had their
// SYN-ACK retransmitted.
type SynQueue struct {
	Len   uint32 `json:"len"`
	Young uint32 `json:"young"`
	Limit uint32 `json:"limit"`
}

// Reuseport is the SO_REUSEPORT group a listener belongs to.
type Reuseport struct {
	Members uint32 `json:"members"`
	Full    uint32 `json:"full"`
}

// Listener is the listening socket. Cookie and Inode are zero, and absent from
// JSON, where the kernel did not say which member of a group it was.
type Listener struct {
	Addr        netip.Addr `json:"addr,omitzero"`
	Port        uint16     `json:"port"`
	Cookie      uint64     `json:"cookie,string,omitempty"`
	Inode       uint64     `json:"inode,omitempty"`
	NetNS       uint64     `json:"netns,omitempty"`
	Proof       Proof      `json:"proof,omitzero"`
	AcceptQueue *Queue     `json:"accept_queue,omitempty"`
	SynQueue    *SynQueue  `json:"syn_queue,omitempty"`
	Reuseport   *Reuseport `json:"reuseport,omitempty"`
	Cgroup      *Cgroup    `json:"cgroup,omitempty"`

	// Key names the socket within one run of synspy: its kernel address.
	Key uint64 `json:"-"`
}

// Role says what a process is to a listener.
type Role string

// The roles, weakest first.
const (
	RoleHolder   Role = "holder"   // has it open
	RoleListener Role = "listener" // called listen()
	RoleAcceptor Role = "acceptor" // has accepted from it
)

// Cgroup is a control group: the v2 one where the process is in one below the
// root, else that of a v1 hierarchy. ID is the kernfs inode.
type Cgroup struct {
	ID   uint64 `json:"id,omitempty"`
	Path string `json:"path,omitempty"`
}

// Container is the container a process runs in.
type Container struct {
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Runtime string `json:"runtime,omitempty"`
}

// Pod is the Kubernetes pod a process runs in.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Container string `json:"container,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// Process holds a listener. LastAcceptMs is the age of its last accept in
// milliseconds, nil where none was seen.
type Process struct {
	PID          uint32     `json:"pid"`
	Comm         string     `json:"comm,omitempty"`
	Role         Role       `json:"role,omitempty"`
	LastAcceptMs *uint64    `json:"last_accept_ms,omitempty"`
	Program      *Software  `json:"program,omitempty"` // in diagnoses
	Cgroup       *Cgroup    `json:"cgroup,omitempty"`
	Container    *Container `json:"container,omitempty"`
	Pod          *Pod       `json:"pod,omitempty"`

	// What its threads were doing: only where they were sampled. Threads may be
	// fewer than ThreadCount, which is how many it had.
	SampledAt   Time     `json:"sampled_at,omitzero"`
	ThreadCount int64    `json:"thread_count,omitempty"`
	Threads     []Thread `json:"threads,omitempty"`
	CPU         *CPU     `json:"cpu,omitempty"`

	// Start is when it began, in clock ticks since boot; 0 where that is unknown.
	Start uint64 `json:"-"`
}

// Software is what a process runs, where that is known.
type Software struct {
	Name     string `json:"name,omitempty"`     // of its executable: "nginx", "python3.11"
	Script   string `json:"script,omitempty"`   // what an interpreter runs: "gunicorn", "org.apache.catalina.startup.Bootstrap"
	Title    string `json:"title,omitempty"`    // the first word of what it wrote over its arguments: "puma"
	Language string `json:"language,omitempty"` // of a compiled one: LanguageGo or LanguageRust
}

// The languages whose programs are told by their executable.
const (
	LanguageGo   = "go"
	LanguageRust = "rust"
)

// Places names where the process runs as tables do, the first with fewest words; the others tell
// more of the same, or less. It is empty where nothing is known of it.
func (p *Process) Places() []string {
	switch {
	case p.Pod != nil && p.Pod.Name != "":
		name := p.Pod.Name
		if p.Pod.Namespace != "" {
			name = p.Pod.Namespace + "/" + name
		}
		if p.Pod.Container != "" {
			return []string{name, name + "/" + p.Pod.Container}
		}
		return []string{name}
	case p.Container != nil && p.Container.Name != "":
		return []string{p.Container.Name}
	case p.Container != nil:
		return []string{p.Container.ID}
	case p.Cgroup != nil && p.Cgroup.Path != "":
		return []string{path.Base(p.Cgroup.Path)}
	}
	return nil
}

// Drop is one handshake packet that died (type "drop"), or one SYN answered by
// a SYN cookie (type "cookie").
type Drop struct {
	Header
	Time       Time        `json:"time,omitzero"`
	Cause      Cause       `json:"cause,omitzero"`
	Stage      Stage       `json:"stage,omitzero"`
	Action     Action      `json:"action,omitzero"`
	Proof      Proof       `json:"proof,omitzero"`
	Kernel     Kernel      `json:"kernel,omitzero"`
	Client     *Endpoint   `json:"client,omitempty"`
	Server     *Endpoint   `json:"server,omitempty"`
	Attempt    uint32      `json:"attempt,omitempty"`
	NetNS      uint64      `json:"netns,omitempty"` // where the packet died
	Device     *Device     `json:"device,omitempty"`
	Connection *Connection `json:"connection,omitempty"`
	Listener   *Listener   `json:"listener,omitempty"`
	Processes  []Process   `json:"processes,omitempty"`
	Cgroup     *Cgroup     `json:"cgroup,omitempty"`
	Container  *Container  `json:"container,omitempty"`
	Pod        *Pod        `json:"pod,omitempty"`
	ClientSees string      `json:"client_sees,omitempty"`
	// Unsent says of a handshake that expired: its SYN-ACK could not be sent again, so that
	// it was given up before net.ipv4.tcp_synack_retries ran out.
	Unsent bool `json:"unsent,omitempty"`

	// Mono is Time by CLOCK_MONOTONIC, in ns; 0 in a record that was read from a file.
	Mono uint64 `json:"-"`

	// Packet is the packet as it was received, from the IP header on; empty
	// where it is unknown. It may have been cut short.
	Packet []byte `json:"-"`
}

// Suppressed says how many records of one key did not reach the stream since the
// last one that did: type "suppressed" for the rate limit or for --count, "lost"
// for a full ring buffer. Others says that the listeners are those which the
// kernel side's table had no room for; then there is no Listener.
type Suppressed struct {
	Header
	Count    uint64    `json:"count"`
	Limit    string    `json:"limit,omitempty"` // what held them back: LimitCount; absent for the rate
	Cause    Cause     `json:"cause,omitzero"`
	Stage    Stage     `json:"stage,omitzero"`
	Action   Action    `json:"action,omitzero"`
	Kernel   Kernel    `json:"kernel,omitzero"` // the counters that moved with each
	Listener *Listener `json:"listener,omitempty"`
	Others   bool      `json:"others,omitempty"`

	// Again is how many of them were of handshakes that had lost a packet before.
	Again uint64 `json:"-"`
}

// LimitCount is the limit of records that came after as many as --count asks for.
const LimitCount = "count"

// Count is one row of the summary.
type Count struct {
	Cause  Cause  `json:"cause,omitzero"`
	Stage  Stage  `json:"stage,omitzero"`
	Action Action `json:"action,omitzero"`
	Count  uint64 `json:"count"`
}

// AddCount adds to the row of the same cause, stage and action.
func AddCount(rows []Count, add Count) []Count {
	for i := range rows {
		if r := &rows[i]; r.Cause == add.Cause && r.Stage == add.Stage &&
			r.Action == add.Action {
			r.Count += add.Count
			return rows
		}
	}
	return append(rows, add)
}

// Seen is how many SYNs and final ACKs reached a listener, dropped or not.
// Others is the row of the listeners that the kernel side's table had no room
// for, or, with Closed, of those that closed, beyond as many as are remembered one
// by one; it has no Listener.
type Seen struct {
	Listener Listener `json:"listener,omitzero"`
	Others   bool     `json:"others,omitempty"`
	Closed   uint64   `json:"closed,omitempty"` // how many listeners the row is of
	Syn      uint64   `json:"syn"`
	Ack      uint64   `json:"ack"`

	Accepting *Accepting `json:"accepting,omitempty"`
}

// LedgerRow balances one counter of one namespace: Kernel is what the kernel's
// counter moved by, Synspy what the counted packets explain, before filters.
type LedgerRow struct {
	NetNS        uint64 `json:"netns"`
	Name         string `json:"netns_name,omitempty"` // of the namespace, in /run/netns
	Counter      string `json:"counter"`
	Kernel       uint64 `json:"kernel"`
	Synspy       uint64 `json:"synspy"`
	Unattributed uint64 `json:"unattributed"`
	Filtered     uint64 `json:"filtered"`
	Shared       bool   `json:"shared,omitempty"`
	Others       bool   `json:"others,omitempty"` // the namespaces that synspy's tables had no room for, NetNS zero
	Gone         bool   `json:"gone,omitempty"`   // the namespace vanished before its closing value could be read
}

// MarshalJSON leaves out the kernel's value where the namespace took it along.
func (r LedgerRow) MarshalJSON() ([]byte, error) {
	type plain LedgerRow
	if !r.Gone {
		return json.Marshal(plain(r))
	}
	return json.Marshal(struct {
		plain
		Kernel *uint64 `json:"kernel,omitempty"`
	}{plain: plain(r)})
}

// Balanced reports whether the row's kernel movement is explained.
func (r LedgerRow) Balanced() bool {
	return r.Shared || r.Gone || r.Kernel == r.Synspy+r.Unattributed
}

// Summary ends a stream.
type Summary struct {
	Header
	DurationMs   int64       `json:"duration_ms"`
	Counts       []Count     `json:"counts"`
	Delivered    uint64      `json:"delivered"`
	Suppressed   uint64      `json:"suppressed"`
	Lost         uint64      `json:"lost"`
	Unattributed uint64      `json:"unattributed"`
	Cookies      uint64      `json:"cookies"`
	Handshakes   uint64      `json:"handshakes"`
	Seen         []Seen      `json:"seen"`
	Ledger       []LedgerRow `json:"ledger"`
	Balanced     bool        `json:"balanced"`
	// Unchecked is how many of Counts may have moved none of the kernel's counters: see
	// [Unchecked].
	Unchecked uint64    `json:"unchecked,omitempty"`
	Recount   *Recount  `json:"recount,omitempty"`
	Overflow  *Overflow `json:"overflow,omitempty"` // nil where everything had room
}

// Recount says that a summary was counted again, from those records of a file that the filters
// given while reading let through, and what is not known of the rest.
type Recount struct {
	Filters []Filter `json:"filters,omitempty"`
	// Unsure packets have no record of their own: they were held back or lost, and whether the
	// filters ask for them is not known. They are not in the counts.
	Unsure uint64 `json:"unsure,omitempty"`
	// UnsureSyns came to listeners of which it is not known whether the filters ask for them.
	UnsureSyns uint64 `json:"unsure_syns,omitempty"`
	// UnsureCookies are SYNs answered by a cookie, likewise.
	UnsureCookies uint64 `json:"unsure_cookies,omitempty"`
	// HandshakesAtLeast says that handshakes may have been more: not every packet has a record.
	HandshakesAtLeast bool `json:"handshakes_at_least,omitempty"`
}

// Balance works out from the ledger's rows, and from what they do not have, whether the
// summary is balanced, and what is unattributed.
func (s *Summary) Balance() {
	s.Balanced, s.Unattributed, s.Unchecked = s.Overflow == nil || s.Overflow.Namespaces == 0,
		0, Unchecked(s.Counts)
	for _, row := range s.Ledger {
		s.Balanced = s.Balanced && row.Balanced()
		s.Unattributed += row.Unattributed
	}
}
