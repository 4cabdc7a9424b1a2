// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/kernel/kerneltest"
)

// TestNetdevRules: a rule that sends what comes in by a device to another one is found at that
// device, and at no other.
func TestNetdevRules(t *testing.T) {
	ns := kerneltest.NewNetNS(t)
	ns.Do(t, func() error {
		if err := kerneltest.AddLink("veth", "syn0", "syn1", 0); err != nil {
			return err
		}
		to, err := kerneltest.DeviceIndex("syn1")
		if err != nil {
			return err
		}
		before, err := kernel.Devices()
		if err != nil {
			return err
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev,
			Name: "syn"})
		conn.AddChain(&nftables.Chain{Table: table, Name: "in",
			Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
			Priority: nftables.ChainPriorityFilter, Device: "syn0"})
		if err := conn.Flush(); err != nil {
			t.Skipf("no netdev chains here: %v", err)
		}
		// Distributions have it as a module.
		if !kernel.HasNFTables() {
			t.Error("a kernel that took a chain has no nftables")
		}
		if err := kernel.AddNetdevRules(before); err != nil {
			return err
		}
		if slices.ContainsFunc(before, func(d kernel.Device) bool {
			return len(d.Takers) > 0
		}) {
			t.Errorf("without a rule: %+v", before)
		}
		switch err := addForward("syn", "in", uint32(to)); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
			t.Skipf("no nft_fwd_netdev here: %v", err)
		case err != nil:
			return err
		}
		list, err := kernel.Devices()
		if err != nil {
			return err
		}
		if err := kernel.AddNetdevRules(list); err != nil {
			return err
		}
		for _, d := range list {
			want := []kernel.Taker(nil)
			if d.Name == "syn0" {
				want = []kernel.Taker{{Hook: kernel.HookNetdevIngress,
					Filter: "nftables", Redirect: true}}
			}
			if !slices.Equal(d.Takers, want) {
				t.Errorf("%s has %+v, want %+v", d.Name, d.Takers, want)
			}
		}
		return nil
	})
}

// addForward adds a rule to a chain of the family netdev that sends everything to a device.
func addForward(table, chain string, device uint32) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	const (
		netdev            = 5    // NFPROTO_NETDEV
		batchFor          = 10   // NFNL_SUBSYS_NFTABLES, in the batch's header
		register          = 1    // NFT_REG_1
		immediateRegister = 1    // NFTA_IMMEDIATE_DREG
		immediateData     = 2    // NFTA_IMMEDIATE_DATA
		dataValue         = 1    // NFTA_DATA_VALUE
		forwardRegister   = 1    // NFTA_FWD_SREG_DEV
		batchBegin        = 0x10 // NFNL_MSG_BATCH_BEGIN
		batchEnd          = 0x11
	)
	rule := netlink.NewAttributeEncoder()
	rule.String(unix.NFTA_RULE_TABLE, table)
	rule.String(unix.NFTA_RULE_CHAIN, chain)
	expression := func(list *netlink.AttributeEncoder, name string,
		fill func(*netlink.AttributeEncoder)) {
		kerneltest.Nested(list, unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_EXPR_NAME, name)
			kerneltest.Nested(e, unix.NFTA_EXPR_DATA, fill)
		})
	}
	kerneltest.Nested(rule, unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) {
		expression(list, "immediate", func(e *netlink.AttributeEncoder) {
			e.Bytes(immediateRegister, binary.BigEndian.AppendUint32(nil, register))
			kerneltest.Nested(e, immediateData, func(d *netlink.AttributeEncoder) {
				d.Bytes(dataValue, binary.NativeEndian.AppendUint32(nil, device))
			})
		})
		expression(list, "fwd", func(e *netlink.AttributeEncoder) {
			e.Bytes(forwardRegister, binary.BigEndian.AppendUint32(nil, register))
		})
	})
	attributes, err := rule.Encode()
	if err != nil {
		return err
	}
	message := func(kind, flags int, family byte, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind),
			Flags: netlink.Request | netlink.HeaderFlags(flags)},
			Data: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...)}
	}
	begin, end := message(batchBegin, 0, unix.AF_UNSPEC, nil),
		message(batchEnd, 0, unix.AF_UNSPEC, nil)
	begin.Data[3], end.Data[3] = batchFor, batchFor // big-endian
	_, err = conn.SendMessages([]netlink.Message{begin,
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE,
			int(netlink.Create|netlink.Append|netlink.Acknowledge), netdev, attributes), end})
	if err != nil {
		return err
	}
	_, err = conn.Receive()
	return err
}
