// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Tracked is a TCP connection that connection tracking sends elsewhere than its client asked for.
type Tracked struct {
	Client netip.AddrPort
	Asked  netip.AddrPort // where the client sends to
	Given  netip.AddrPort // who gets it
}

// Of include/uapi/linux/netfilter/nfnetlink_conntrack.h and net/netfilter/nf_internals.h.
const (
	ctGet             = 1<<8 | 1 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
	ctTupleOrig       = 1        // CTA_TUPLE_ORIG and so on
	ctTupleReply      = 2
	ctFilter          = 25
	ctFilterOrigFlags = 1
	ctFilterReply     = 2
	ctTupleIP         = 1
	ctTupleProto      = 2
	ctProtoNum        = 1
	ctProtoSource     = 2
	ctProtoDest       = 3
	ctByProtocol      = 1<<3 | 1<<5 // CTA_FILTER_F_CTA_PROTO_NUM, _DST_PORT
	// maxTracked bounds a listing that the kernel does not narrow (before 5.8).
	maxTracked = 1 << 16
)

// TrackedTo lists the connections that clients made to a port and that are sent elsewhere, in the
// calling thread's network namespace: none where connections are not tracked. It takes
// CAP_NET_ADMIN.
func TrackedTo(port uint16) ([]Tracked, error) {
	entries := sysctlNumber("/proc/sys/net/netfilter/nf_conntrack_count")
	if entries == nil || *entries == 0 {
		return nil, nil // nothing is asked that might make the kernel load what it does not use
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("list tracked connections: %w", err)
	}
	defer conn.Close()
	var list []Tracked
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		answers, err := trackedOf(conn, family, port)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			if *entries > maxTracked {
				return nil, fmt.Errorf("list tracked connections: %d are too many for this kernel to narrow: %w", *entries, err)
			}
			answers, err = conn.Execute(netlink.Message{Header: netlink.Header{
				Type: ctGet, Flags: netlink.Request | netlink.Dump},
				Data: []byte{family, 0, 0, 0}})
		}
		if err != nil {
			return nil, fmt.Errorf("list tracked connections: %w", err)
		}
		for _, answer := range answers {
			if t, ok := parseTracked(answer.Data); ok && t.Asked.Port() == port &&
				t.Asked != t.Given {
				list = append(list, t)
			}
		}
	}
	return list, nil
}

// trackedOf has the kernel narrow the list (CTA_FILTER, 5.8).
func trackedOf(conn *netlink.Conn, family byte, port uint16) ([]netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Nested(ctTupleOrig, func(tuple *netlink.AttributeEncoder) error {
		tuple.Nested(ctTupleProto, func(proto *netlink.AttributeEncoder) error {
			proto.Uint8(ctProtoNum, unix.IPPROTO_TCP)
			proto.Bytes(ctProtoDest, binary.BigEndian.AppendUint16(nil, port))
			return nil
		})
		return nil
	})
	ae.Nested(ctFilter, func(filter *netlink.AttributeEncoder) error {
		filter.Uint32(ctFilterOrigFlags, ctByProtocol)
		filter.Uint32(ctFilterReply, 0)
		return nil
	})
	attributes, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return conn.Execute(netlink.Message{Header: netlink.Header{Type: ctGet,
		Flags: netlink.Request | netlink.Dump},
		Data: append([]byte{family, 0, 0, 0}, attributes...)})
}

// parseTracked reads a struct nfgenmsg and its attributes.
func parseTracked(b []byte) (t Tracked, ok bool) {
	if len(b) < 4 {
		return t, false
	}
	attributes, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return t, false
	}
	var reply netip.AddrPort
	var tcp bool
	for attributes.Next() {
		switch attributes.Type() {
		case ctTupleOrig:
			attributes.Nested(func(tuple *netlink.AttributeDecoder) error {
				t.Client, t.Asked, tcp = parseTuple(tuple)
				return nil
			})
		case ctTupleReply:
			attributes.Nested(func(tuple *netlink.AttributeDecoder) error {
				reply, _, _ = parseTuple(tuple)
				return nil
			})
		}
	}
	t.Given = reply
	return t, attributes.Err() == nil && tcp && t.Asked.IsValid() && t.Given.IsValid()
}

func parseTuple(tuple *netlink.AttributeDecoder) (from, to netip.AddrPort, tcp bool) {
	var addrs [2]netip.Addr
	var ports [2]uint16
	for tuple.Next() {
		switch tuple.Type() {
		case ctTupleIP:
			tuple.Nested(func(ip *netlink.AttributeDecoder) error {
				for ip.Next() { // CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST
					if n := ip.Type(); n >= 1 && n <= 4 {
						addrs[(n-1)%2], _ = netip.AddrFromSlice(ip.Bytes())
					}
				}
				return nil
			})
		case ctTupleProto:
			tuple.Nested(func(proto *netlink.AttributeDecoder) error {
				for proto.Next() {
					switch n := proto.Type(); n {
					case ctProtoNum:
						tcp = proto.Uint8() == unix.IPPROTO_TCP
					case ctProtoSource, ctProtoDest:
						if data := proto.Bytes(); len(data) == 2 {
							ports[n-ctProtoSource] = binary.BigEndian.Uint16(data)
						}
					}
				}
				return nil
			})
		}
	}
	return netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1]), tcp
}

// OldTables lists the tables of iptables (legacy) that the calling thread's network namespace has:
// "nat", "mangle". None is no error.
func OldTables() (tables []string) {
	for _, name := range []string{"ip_tables_names", "ip6_tables_names"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // only root may read it
		}
		tables = append(tables, strings.Fields(string(text))...)
	}
	return tables
}
