// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Diversion is a rule of netfilter that sends connections elsewhere: what it says, not whether a
// packet gets to it.
type Diversion struct {
	Kind  string // "redirect", "dnat", "tproxy"
	Where string // "table ip nat, chain PREROUTING"
	// Ports are those that it is for, first and last; none where the rule does not say so
	// itself.
	Ports [][2]uint16
	To    netip.AddrPort // the address is not valid where it stays, or is not told; port 0 where that stays, or is not told
}

// For reports whether the rule says that it is for the port.
func (d *Diversion) For(port uint16) bool {
	for _, r := range d.Ports {
		if r[0] <= port && port <= r[1] {
			return true
		}
	}
	return false
}

// maxRules bounds the rules that are looked at; kube-proxy makes tens of thousands.
const maxRules = 20000

// Diversions lists the rules of nftables, and of iptables where that is made of nftables, that
// divert connections of TCP in the calling thread's network namespace. It takes CAP_NET_ADMIN.
// Rules of a kernel without nf_tables are none.
func Diversions() ([]Diversion, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("list nftables rules: %w", err)
	}
	chains, err := conn.ListChains()
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var list []Diversion
	read := 0
	for _, chain := range chains {
		read++ // asking costs as much as a rule
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return list, fmt.Errorf("list nftables rules of chain %q: %w", chain.Name,
				err)
		}
		for _, rule := range rules {
			if read++; read > maxRules {
				return list, fmt.Errorf(
					"list nftables rules: there are more than %d", maxRules)
			}
			if d, ok := diversionOf(conn, chain.Table, rule); ok {
				d.Where = fmt.Sprintf("table %s %s, chain %s",
					familyName(chain.Table.Family), chain.Table.Name, chain.Name)
				list = append(list, d)
			}
		}
	}
	return list, nil
}

// diversionOf reads one rule, as nft and iptables-nft write them; what it does not know of a rule
// it does not say.
func diversionOf(conn *nftables.Conn, table *nftables.Table, rule *nftables.Rule,
) (d Diversion, ok bool) {
	registers := make(map[uint32][]byte)
	port := uint32(0) // the register that has the destination port
	for _, e := range rule.Exprs {
		switch e := e.(type) {
		case *expr.Payload:
			if e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 &&
				e.Len == 2 {
				port = e.DestRegister
			} else if e.DestRegister == port {
				port = 0
			}
		case *expr.Cmp:
			if port != 0 && e.Register == port && e.Op == expr.CmpOpEq &&
				len(e.Data) == 2 {
				n := binary.BigEndian.Uint16(e.Data)
				d.Ports = append(d.Ports, [2]uint16{n, n})
			}
		case *expr.Range:
			if port != 0 && e.Register == port && e.Op == expr.CmpOpEq &&
				len(e.FromData) == 2 && len(e.ToData) == 2 {
				d.Ports = append(d.Ports,
					[2]uint16{binary.BigEndian.Uint16(e.FromData),
						binary.BigEndian.Uint16(e.ToData)})
			}
		case *expr.Lookup:
			if port != 0 && e.SourceRegister == port && !e.Invert && !e.IsDestRegSet {
				d.Ports = append(d.Ports, portsOf(conn, table, e.SetName)...)
			}
		case *expr.Match:
			if tcp, is := e.Info.(*xt.Tcp); is &&
				tcp.InvFlags&xt.TcpInvDestPorts == 0 &&
				tcp.DstPorts != [2]uint16{0, 65535} {
				d.Ports = append(d.Ports, tcp.DstPorts)
			}
		case *expr.Immediate:
			registers[e.Register] = e.Data
		case *expr.Redir:
			d.Kind, d.To = "redirect", aim(nil, registers[e.RegisterProtoMin])
		case *expr.TProxy:
			d.Kind, d.To = "tproxy", aim(registers[e.RegAddr], registers[e.RegPort])
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				d.Kind, d.To = "dnat",
					aim(registers[e.RegAddrMin], registers[e.RegProtoMin])
			}
		case *expr.Target:
			switch e.Name {
			case "REDIRECT", "DNAT", "TPROXY":
				d.Kind, d.To = map[string]string{"REDIRECT": "redirect",
					"DNAT": "dnat", "TPROXY": "tproxy"}[e.Name], targetOf(
					e.Info)
			}
		}
	}
	return d, d.Kind != ""
}

func aim(addr, port []byte) netip.AddrPort {
	to, _ := netip.AddrFromSlice(addr)
	n := uint16(0)
	if len(port) >= 2 {
		n = binary.BigEndian.Uint16(port)
	}
	return netip.AddrPortFrom(to, n)
}

// targetOf reads what iptables' targets say, where it is known.
func targetOf(info xt.InfoAny) netip.AddrPort {
	var r xt.NatRange
	switch i := info.(type) {
	case *xt.NatRange2:
		r = i.NatRange
	case *xt.NatRange:
		r = *i
	case *xt.NatIPv4MultiRangeCompat:
		if len(*i) == 0 {
			return netip.AddrPort{}
		}
		first := (*i)[0]
		to, _ := netip.AddrFromSlice(first.MinIP.To4())
		return netip.AddrPortFrom(known(to), first.MinPort)
	default:
		return netip.AddrPort{}
	}
	to, _ := netip.AddrFromSlice(r.MinIP)
	return netip.AddrPortFrom(known(to.Unmap()), r.MinPort)
}

// known is the address, the zero value for an empty one.
func known(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// portsOf lists the ports of a set, such as { 80, 443 }.
func portsOf(conn *nftables.Conn, table *nftables.Table, name string) (ports [][2]uint16) {
	set, err := conn.GetSetByName(table, name)
	if err != nil {
		return nil
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		return nil
	}
	var starts, ends []uint16
	for _, e := range elements {
		switch {
		case len(e.Key) != 2:
		case e.IntervalEnd: // the first that is not in it any more
			ends = append(ends, binary.BigEndian.Uint16(e.Key))
		default:
			starts = append(starts, binary.BigEndian.Uint16(e.Key))
		}
	}
	slices.Sort(ends)
	for _, n := range starts {
		last := n
		if i, _ := slices.BinarySearch(ends, n+1); len(ends) > 0 && n < 65535 {
			last = 65535
			if i < len(ends) {
				last = ends[i] - 1
			}
		}
		ports = append(ports, [2]uint16{n, last})
	}
	return ports
}
