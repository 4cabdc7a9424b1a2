// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	ctNew                           = unix.NFNL_SUBSYS_CTNETLINK << 8 // IPCTNL_MSG_CT_NEW
	ctTupleOrig, ctTupleReply       = 1, 2
	ctStatus, ctTimeout             = 3, 7
	ctTupleIP, ctTupleProto         = 1, 2
	ctSource4, ctDestination4       = 1, 2
	ctProtoNumber                   = 1
	ctSourcePort, ctDestinationPort = 2, 3
	ctKept                          = 2 | 4 | 8 // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED: such an entry is not thrown out for another
)

const (
	maxTracked   = 1 << 19 // entries, of some 320 bytes each: more is no table that the lab fills
	trackAtATime = 256
)

// Track turns connection tracking on, by a rule that asks for a state, and fills its table:
// nf_conntrack_max is the machine's, but the entries that are counted against it are the
// namespace's. The error wraps ErrCannotHold where that is not to be had.
func (w *World) Track() error {
	return w.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4,
			Name: "lab"})
		chain := conn.AddChain(&nftables.Chain{Name: "lab", Table: table,
			Type: nftables.ChainTypeFilter, Hooknum: HookInput, Priority: nftables.ChainPriorityFilter})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain,
			Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}})
		if err := conn.Flush(); err != nil {
			return untracked(err)
		}
		limit, err := trackedNumber("nf_conntrack_max")
		if err != nil {
			return untracked(err)
		}
		if limit > maxTracked {
			return fmt.Errorf("%w: its connection tracking table has room for %d entries", ErrCannotHold, limit)
		}
		return fillTable(limit)
	})
}

func untracked(err error) error {
	if Missing(err) {
		return fmt.Errorf("%w: it needs nf_tables and connection tracking: %w",
			ErrCannotHold, err)
	}
	return fmt.Errorf("track connections: %w", err)
}

func trackedNumber(name string) (uint32, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	return uint32(n), err
}

// fillTable makes entries of UDP flows that nobody has.
func fillTable(limit uint32) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return untracked(err)
	}
	defer conn.Close()
	var some []netlink.Message
	for i := range limit + 1 {
		message, err := flowEntry(i)
		if err != nil {
			return err
		}
		if some = append(some, message); len(some) < trackAtATime && i < limit {
			continue
		}
		if _, err := conn.SendMessages(some); err != nil {
			return untracked(err)
		}
		some = some[:0]
	}
	count, err := trackedNumber("nf_conntrack_count")
	if err == nil && count < limit {
		err = fmt.Errorf("%w: it took %d of %d entries for its connection tracking table",
			ErrCannotHold, count, limit)
	}
	return err
}

// flowEntry makes a request for the entry of that number. Those that fail are told of, and nobody
// reads it: the table is looked at.
func flowEntry(number uint32) (netlink.Message, error) {
	here, there := binary.BigEndian.AppendUint32(nil, 0x0a620000|number>>16), []byte{10, 99, 0,
		1}
	port, other := binary.BigEndian.AppendUint16(nil, uint16(number)), []byte{0, 9}
	attributes := netlink.NewAttributeEncoder()
	tuple := func(kind uint16, from, to, fromPort, toPort []byte) {
		attributes.Nested(kind, func(t *netlink.AttributeEncoder) error {
			t.Nested(ctTupleIP, func(ip *netlink.AttributeEncoder) error {
				ip.Bytes(ctSource4, from)
				ip.Bytes(ctDestination4, to)
				return nil
			})
			t.Nested(ctTupleProto, func(proto *netlink.AttributeEncoder) error {
				proto.Uint8(ctProtoNumber, unix.IPPROTO_UDP)
				proto.Bytes(ctSourcePort, fromPort)
				proto.Bytes(ctDestinationPort, toPort)
				return nil
			})
			return nil
		})
	}
	tuple(ctTupleOrig, here, there, port, other)
	tuple(ctTupleReply, there, here, other, port)
	attributes.Bytes(ctStatus, binary.BigEndian.AppendUint32(nil, ctKept))
	attributes.Bytes(ctTimeout, binary.BigEndian.AppendUint32(nil, 600)) // seconds
	encoded, err := attributes.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: ctNew, Flags: netlink.Request | netlink.Create},
		Data:   append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, encoded...),
	}, err
}

// Of include/uapi/linux/netfilter/nfnetlink_queue.h.
const (
	queueConfig           = unix.NFNL_SUBSYS_QUEUE<<8 | 2 // NFQNL_MSG_CONFIG
	queueCommand          = 1                             // NFQA_CFG_CMD
	queueParameters       = 2                             // NFQA_CFG_PARAMS
	queueBind, copyNoData = 1, 1
)

// HoldQueue reads a queue of netfilter's and gives no verdict. The error wraps ErrCannotHold where
// the kernel has none.
func (w *World) HoldQueue(number uint16) error {
	return w.Do(func() error {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return untracked(err)
		}
		w.Keep(conn)
		for _, a := range []netlink.Attribute{
			{Type: queueCommand, Data: []byte{queueBind, 0, 0, unix.AF_INET}},
			{Type: queueParameters, Data: []byte{0, 0, 0, 0, copyNoData}},
		} {
			data, err := netlink.MarshalAttributes([]netlink.Attribute{a})
			if err != nil {
				return err
			}
			header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC,
				unix.NFNETLINK_V0}, number)
			if _, err := conn.Execute(netlink.Message{Header: netlink.Header{
				Type: queueConfig, Flags: netlink.Request | netlink.Acknowledge},
				Data: append(header, data...)}); err != nil {
				return untracked(err)
			}
		}
		go func() {
			for {
				if _, err := conn.Receive(); err != nil &&
					!errors.Is(err, unix.ENOBUFS) {
					return // it is closed
				}
			}
		}()
		return nil
	})
}
