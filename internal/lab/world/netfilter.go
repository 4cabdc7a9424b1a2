// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// The netfilter hooks that scenarios use.
var (
	HookInput       = nftables.ChainHookInput
	HookPrerouting  = nftables.ChainHookPrerouting
	HookOutput      = nftables.ChainHookOutput
	HookPostrouting = nftables.ChainHookPostrouting
	HookIngress     = nftables.ChainHookIngress // of a device (family netdev); its number is prerouting's
)

// queueTarget is iptables' NFQUEUE, revision 0: the queue's number.
func queueTarget(number uint16) *expr.Target {
	info := xt.Unknown(binary.NativeEndian.AppendUint16(nil, number))
	return &expr.Target{Name: "NFQUEUE", Rev: 0, Info: &info}
}

// Ruling is what a firewall does with a SYN, and what is to be seen of it.
type Ruling struct {
	Verdict expr.Any
	Refusal string // what answers, as records name it; empty: nothing
	Sees    string // the client
}

// Drop is a ruling without an answer.
func Drop() Ruling { return Ruling{&expr.Verdict{Kind: expr.VerdictDrop}, "", "timeout"} }

// RejectRST answers by an RST.
func RejectRST() Ruling {
	return Ruling{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}, "tcp reset", "refused"}
}

// RejectICMP answers by an ICMP error, as iptables' REJECT and firewalld do.
func RejectICMP(code uint8, refusal, sees string) Ruling {
	return Ruling{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}, refusal, sees}
}

// Queue hands packets to a program that is not there. Where nftables has no queue, iptables' target
// serves.
func Queue() Ruling { return Ruling{&expr.Queue{Num: 7}, "", "timeout"} }

// PrepareReject makes the kernel load netfilter's reject, by a rule for another port.
func PrepareReject(f Family) func(*World) error {
	return func(w *World) error {
		return w.Firewall(At(f.Server, 1), HookInput,
			RejectRST().Verdict)
	}
}

// PrepareQueueOf does so with queues, whose functions are known only then, by a rule for that port.
func PrepareQueueOf(server netip.AddrPort) func(*World) error {
	return func(w *World) error { return w.Firewall(server, HookInput, Queue().Verdict) }
}

// Firewall adds a chain whose only rule gives a verdict on SYNs to the address's
// port, as nft would:
//
//	table ip lab { chain lab { type filter hook input priority 0;
//	    tcp flags & (syn|ack) == syn tcp dport 8080 drop } }
//
// The error is that of addRule.
func (w *World) Firewall(server netip.AddrPort, hook *nftables.ChainHook, verdict expr.Any) error {
	return w.Rule(server, hook, FlagSYN, verdict)
}

// FirewallAnswers does so on the SYN-ACKs from the address's port: drop.
func (w *World) FirewallAnswers(server netip.AddrPort, hook *nftables.ChainHook) error {
	return w.Rule(server, hook, FlagSYN|FlagACK, Drop().Verdict)
}

// Rule is firewall, for SYNs to the port, for what has ACK and no SYN, or for SYN-ACKs from it.
func (w *World) Rule(server netip.AddrPort, hook *nftables.ChainHook, flags byte,
	verdict expr.Any) error {
	portAt := uint32(2) // destination
	if flags == FlagSYN|FlagACK {
		portAt = 0
	}
	family := nftables.TableFamilyIPv4
	if server.Addr().Is6() {
		family = nftables.TableFamilyIPv6
	}
	device := ""
	if hook == HookIngress {
		family, device = nftables.TableFamilyNetdev, TUNName
	}
	add := func(verdict expr.Any) error {
		return w.AddRule("nf_tables with what the rule does (nft_reject_ipv4, nft_reject_ipv6, nft_queue)", func(conn *nftables.Conn) *nftables.Chain {
			table := conn.AddTable(&nftables.Table{Family: family, Name: "lab"})
			chain := conn.AddChain(&nftables.Chain{
				Name: "lab", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: hook, Priority: nftables.ChainPriorityFilter,
				Device: device,
			})
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1,
					Data: []byte{unix.IPPROTO_TCP}},
				&expr.Payload{DestRegister: 1,
					Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1,
					Mask: []byte{FlagSYN | FlagACK}, Xor: []byte{0}},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{flags}},
				&expr.Payload{DestRegister: 1,
					Base: expr.PayloadBaseTransportHeader, Offset: portAt,
					Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1,
					Data: binary.BigEndian.AppendUint16(nil, server.Port())},
				verdict,
			}})
			return chain
		})
	}
	err := add(verdict)
	if q, ok := verdict.(*expr.Queue); ok && errors.Is(err, ErrCannotHold) {
		err = add(queueTarget(q.Num))
	}
	return err
}

// Missing reports whether an error of a netlink socket means that the kernel
// lacks the subsystem: no such protocol, no such subsystem, no such expression.
func Missing(err error) bool {
	for _, errno := range []unix.Errno{unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.ENOENT,
		unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
