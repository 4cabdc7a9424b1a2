// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// The netfilter hooks that scenarios use.
var (
	hookInput       = nftables.ChainHookInput
	hookPrerouting  = nftables.ChainHookPrerouting
	hookOutput      = nftables.ChainHookOutput
	hookPostrouting = nftables.ChainHookPostrouting
	hookIngress     = nftables.ChainHookIngress // of a device (family netdev); its number is prerouting's
)

// queueTarget is iptables' NFQUEUE, revision 0: the queue's number.
func queueTarget(number uint16) *expr.Target {
	info := xt.Unknown(binary.NativeEndian.AppendUint16(nil, number))
	return &expr.Target{Name: "NFQUEUE", Rev: 0, Info: &info}
}

// ruling is what a firewall does with a SYN, and what is to be seen of it.
type ruling struct {
	verdict expr.Any
	refusal string // what answers, as records name it; empty: nothing
	sees    string // the client
}

func drop() ruling { return ruling{&expr.Verdict{Kind: expr.VerdictDrop}, "", "timeout"} }

func rejectRST() ruling {
	return ruling{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}, "tcp reset", "refused"}
}

// rejectICMP answers by an ICMP error, as iptables' REJECT and firewalld do.
func rejectICMP(code uint8, refusal, sees string) ruling {
	return ruling{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}, refusal, sees}
}

// queue hands packets to a program that is not there. Where nftables has no queue, iptables' target serves.
func queue() ruling { return ruling{&expr.Queue{Num: 7}, "", "timeout"} }

func (r ruling) action() event.Action {
	if r.refusal != "" {
		return event.ActionReset
	}
	return event.ActionDropped
}

// playFirewall puts a rule before one of two ports of a healthy process.
func playFirewall(f family, hook *nftables.ChainHook, rule ruling) playFunc {
	bound, server := f.listener, f.server
	const open = port + 1
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		if err := w.firewall(server, hook, rule.verdict); err != nil {
			return none, err
		}
		if _, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{
			{Addr: bound, Backlog: backlog}, {Addr: at(bound, open), Backlog: backlog},
		}}); err != nil {
			return none, err
		}
		dead, err := w.Burst(ctx, server, 3)
		if err != nil {
			return none, err
		}
		if err := dead[0].SYN(); err != nil {
			return none, err
		}
		dead = append(dead, dead[0])
		answered, err := w.Burst(ctx, at(server, open), 2)
		if err != nil {
			return none, err
		}
		onWire := event.ActionDropped // an ICMP error is no RST
		if rule.refusal == rejectRST().refusal {
			onWire = event.ActionReset
		}
		if err := errors.Join(wantFate(onWire, dead...), wantAnswers(answered, len(answered))); err != nil {
			return none, err
		}
		log("nftables kept %d SYNs from the listener (%v); %d to the next port were answered", len(dead), rule.action(), len(answered))
		e := ingress(event.CauseNetfilter, rule.action(), dead...)
		e.Records[0].Hook, e.Records[0].Refusal, e.Records[0].Sees = hookName(hook), rule.refusal, rule.sees
		return e, nil
	}
}

func hookName(hook *nftables.ChainHook) string {
	switch hook {
	case hookPrerouting:
		return "prerouting"
	case hookOutput:
		return "output"
	case hookIngress:
		return "ingress"
	}
	return "input"
}

// prepareReject makes the kernel load netfilter's reject, by a rule for another port.
func prepareReject(f family) func(*World) error {
	return func(w *World) error { return w.firewall(at(f.server, 1), hookInput, rejectRST().verdict) }
}

// prepareQueueOf does so with queues, whose functions are known only then, by a rule for that port.
func prepareQueueOf(server netip.AddrPort) func(*World) error {
	return func(w *World) error { return w.firewall(server, hookInput, queue().verdict) }
}

// firewall adds a chain whose only rule gives a verdict on SYNs to the address's
// port, as nft would:
//
//	table ip lab { chain lab { type filter hook input priority 0;
//	    tcp flags & (syn|ack) == syn tcp dport 8080 drop } }
//
// The error is that of addRule.
func (w *World) firewall(server netip.AddrPort, hook *nftables.ChainHook, verdict expr.Any) error {
	return w.rule(server, hook, flagSYN, verdict)
}

// firewallAnswers does so on the SYN-ACKs from the address's port: drop.
func (w *World) firewallAnswers(server netip.AddrPort, hook *nftables.ChainHook) error {
	return w.rule(server, hook, flagSYN|flagACK, drop().verdict)
}

// rule is firewall, for SYNs to the port, for what has ACK and no SYN, or for SYN-ACKs from it.
func (w *World) rule(server netip.AddrPort, hook *nftables.ChainHook, flags byte, verdict expr.Any) error {
	portAt := uint32(2) // destination
	if flags == flagSYN|flagACK {
		portAt = 0
	}
	family := nftables.TableFamilyIPv4
	if server.Addr().Is6() {
		family = nftables.TableFamilyIPv6
	}
	device := ""
	if hook == hookIngress {
		family, device = nftables.TableFamilyNetdev, tunName
	}
	add := func(verdict expr.Any) error {
		return w.addRule("nf_tables with what the rule does (nft_reject_ipv4, nft_reject_ipv6, nft_queue)", func(conn *nftables.Conn) *nftables.Chain {
			table := conn.AddTable(&nftables.Table{Family: family, Name: "lab"})
			chain := conn.AddChain(&nftables.Chain{
				Name: "lab", Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Device: device,
			})
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagSYN | flagACK}, Xor: []byte{0}},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{flags}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: portAt, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, server.Port())},
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

// missing reports whether an error of a netlink socket means that the kernel
// lacks the subsystem: no such protocol, no such subsystem, no such expression.
func missing(err error) bool {
	for _, errno := range []unix.Errno{unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.ENOENT, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
