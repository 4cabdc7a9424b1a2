// SPDX-License-Identifier: Apache-2.0

// Package message decodes what the kernel side writes into the ring buffer, and names the kernel's
// numbers in it.
package message

import (
	"net/netip"
	"unsafe"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// Kind says what a message of the ring buffer is.
type Kind uint8

// The kinds, as enum message_kind of bpf/event.h.
const (
	KindRecord = Kind(bpf.SynspyMessageKindMESSAGE_RECORD)
	KindOpened = Kind(bpf.SynspyMessageKindMESSAGE_OPENED)
	KindClosed = Kind(bpf.SynspyMessageKindMESSAGE_CLOSED)
)

// Message is one message, decoded. Its fields are overwritten by the next one.
type Message struct {
	Kind     Kind
	Time     uint64 // CLOCK_MONOTONIC, ns
	Outcome  event.Outcome
	Family6  bool
	HasFlow  bool // Client and Server are known
	Client   event.Endpoint
	Server   event.Endpoint
	Attempt  uint32
	Proof    event.Proof
	Reason   uint32    // enum skb_drop_reason of this kernel; 0: none was told
	Place    uint64    // code address that freed the packet; 0: not told
	NetNS    uint64    // where it died
	Device   uint32    // index of the one it came in by, of deaths before a listener; 0: unknown
	Met      string    // state of the connection that a SYN met, as ss prints it; empty: none, or not told
	MetInode uint64    // of its socket; 0: no process has it
	Hook     string    // of netfilter, if it killed the packet, by how far that came: prerouting, input, forward
	Callers  [2]uint64 // code addresses that called netfilter then; 0: not told
	ICMP     ICMP      // the error that answered the packet
	Unsent   bool      // a handshake was given up since its SYN-ACK could not be sent again
	Packet   []byte    // its first bytes from the IP header on, with Config.Capture; valid until the next message
	Listener Listener
	PID      uint32 // of the caller of listen() or close()
	Comm     string // only for KindOpened
	// Backlog is what listen() was called with, for KindOpened where Asked says that it is known.
	Backlog uint32
	Asked   bool
}

// Listener is a listening socket as the kernel side read it.
type Listener struct {
	Socket    uint64
	Cookie    uint64
	Inode     uint64
	Cgroup    uint64
	NetNS     uint64
	Addr      netip.Addr
	Accept    event.Queue
	Syn       event.SynQueue
	Reuseport event.Reuseport // no members: not in a group
	Device    uint32          // index, in its namespace, of the one it is bound to; 0 for none
	Port      uint16
	Known     bool
	Member    bool // false: some member of its SO_REUSEPORT group
	Proof     event.Proof
}

// Decode reads one message; false means that it is not one of ours.
func (m *Message) Decode(raw []byte) bool {
	if len(raw) == 0 {
		return false
	}
	m.Kind = Kind(raw[0])
	switch m.Kind {
	case KindRecord:
		if len(raw) < int(unsafe.Sizeof(bpf.SynspyRecord{})) {
			return false
		}
		m.decodeRecord((*bpf.SynspyRecord)(unsafe.Pointer(&raw[0])))
		m.Packet = nil
		if len(raw) >= int(unsafe.Sizeof(bpf.SynspyCaptured{})) {
			captured := (*bpf.SynspyCaptured)(unsafe.Pointer(&raw[0]))
			m.Packet = captured.Bytes[:min(int(captured.Length), len(captured.Bytes))]
		}
		return true
	case KindOpened, KindClosed:
		if len(raw) < int(unsafe.Sizeof(bpf.SynspyListenChange{})) {
			return false
		}
		change := (*bpf.SynspyListenChange)(unsafe.Pointer(&raw[0]))
		m.Time, m.PID = change.Time, change.Pid
		m.Comm, m.Backlog, m.Asked = "", change.Backlog, change.Asked != 0
		if m.Kind == KindOpened {
			m.Comm = Text(change.Comm)
		}
		m.Listener = ListenerOf(&change.Listener)
		return true
	}
	return false
}

func (m *Message) decodeRecord(raw *bpf.SynspyRecord) {
	m.Time = raw.Time
	m.Outcome = event.Outcome(raw.Outcome)
	m.HasFlow = raw.Family != 0
	m.Client = event.Endpoint{Addr: Address(raw.Client), Port: raw.ClientPort}
	m.Server = event.Endpoint{Addr: Address(raw.Server), Port: raw.ServerPort}
	m.Family6 = m.Server.Addr.Is6()
	m.Attempt = raw.Attempt
	m.Proof = event.Proof(raw.Proof)
	m.Reason, m.Place, m.NetNS = raw.Reason, raw.Place, uint64(raw.Netns)
	m.Device, m.Met, m.MetInode = raw.Device, states[raw.MetState], raw.MetInode
	m.Hook, m.Callers = hooks[bpf.SynspyNetfilterHook(raw.Hook)], raw.Callers
	m.ICMP, m.Unsent = ICMP{raw.IcmpType, raw.IcmpCode}, raw.Unsent != 0
	m.Listener = ListenerOf(&raw.Listener)
}

// states of include/net/tcp_states.h, as ss prints them.
var states = map[uint32]string{1: "ESTAB", 2: "SYN-SENT", 3: "SYN-RECV", 4: "FIN-WAIT-1",
	5: "FIN-WAIT-2", 6: "TIME-WAIT",
	7: "CLOSED", 8: "CLOSE-WAIT", 9: "LAST-ACK", 11: "CLOSING"}

var hooks = map[bpf.SynspyNetfilterHook]string{
	bpf.SynspyNetfilterHookHOOK_PREROUTING: "prerouting",
	bpf.SynspyNetfilterHookHOOK_INPUT:      "input",
	bpf.SynspyNetfilterHookHOOK_FORWARD:    "forward",
}

func ListenerOf(raw *bpf.SynspyListener) Listener {
	if raw.Id == 0 || raw.Family == 0 {
		return Listener{}
	}
	l := Listener{
		Known: true, Member: true, Socket: raw.Id, Cookie: raw.Cookie, Inode: raw.Inode, Cgroup: raw.Cgroup,
		NetNS: uint64(raw.Netns), Port: raw.Port, Device: raw.Device, Proof: event.ProofState,
		Accept: event.Queue{Len: raw.AcceptLen, Limit: raw.AcceptLimit},
		Syn: event.SynQueue{Len: raw.SynLen, Young: raw.SynYoung,
			Limit: raw.AcceptLimit},
		Reuseport: event.Reuseport{Members: raw.ReuseMembers, Full: raw.ReuseFull},
	}
	switch bpf.SynspyListenerProof(raw.Proof) {
	case bpf.SynspyListenerProofLISTENER_GIVEN:
		l.Proof = event.ProofSocket
	case bpf.SynspyListenerProofLISTENER_GROUP:
		l.Member = false
	}
	if raw.Family == afInet {
		l.Addr = Address(raw.Addr)
	} else {
		l.Addr = netip.AddrFrom16(raw.Addr)
	}
	return l
}

const afInet = 2

// Address reads 16 bytes, IPv4 as v4-mapped.
func Address(raw [16]uint8) netip.Addr { return netip.AddrFrom16(raw).Unmap() }

// Text reads a C string.
func Text(raw [16]int8) string { return TextLike(raw, "") }

// TextLike reads a C string, which is that one if they are the same.
func TextLike(raw [16]int8, likely string) string {
	var b [16]byte
	n := 0
	for n < len(raw) && raw[n] != 0 {
		b[n] = byte(raw[n])
		n++
	}
	if string(b[:n]) == likely {
		return likely
	}
	return string(b[:n])
}
