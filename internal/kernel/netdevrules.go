// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// HookNetdevIngress and HookNetdevEgress are those of nftables' family netdev.
const (
	HookNetdevIngress Hook = "netdev ingress"
	HookNetdevEgress  Hook = "netdev egress"
)

// Of include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
const (
	familyNetdev    = 5 // NFPROTO_NETDEV
	netfilterHeader = 4 // struct nfgenmsg
	hookEgress      = 1 // NF_NETDEV_EGRESS
	hookDevicesType = 4 // NFTA_HOOK_DEVS
	devicePrefix    = 2 // NFTA_DEVICE_PREFIX, since 6.16
)

// netdevChain is a chain of the family that is hooked into devices.
type netdevChain struct {
	table   string
	hook    Hook
	devices []string // one that ends in * stands for all names that begin so
}

// AddNetdevRules adds to the devices of the calling thread's namespace what rules of nftables'
// family netdev send to another device (fwd): no event tells of such a packet. Those that drop need
// not be known, since each drop has its event. Asking makes the kernel load nf_tables where that is
// a module: ask only where it is there. It takes CAP_NET_ADMIN in that namespace.
func AddNetdevRules(list []Device) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("list netdev rules: %w", err)
	}
	defer conn.Close()
	tables, err := forwardingTables(conn)
	if err != nil || len(tables) == 0 {
		return err
	}
	answers, err := netdevDump(conn, unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return err
	}
	for _, answer := range answers {
		chain, err := parseNetdevChain(answer.Data)
		if err != nil {
			return fmt.Errorf("list netdev rules: %w", err)
		}
		if !slices.Contains(tables, chain.table) {
			continue
		}
		for i := range list {
			t := Taker{Hook: chain.hook, Filter: "nftables", Redirect: true}
			if chain.on(list[i].Name) && !slices.Contains(list[i].Takers, t) {
				list[i].Takers = append(list[i].Takers, t)
			}
		}
	}
	return nil
}

// netdevDump asks for all objects of the family; a kernel without nf_tables, or without the family,
// has none.
func netdevDump(conn *netlink.Conn, what uint16) ([]netlink.Message, error) {
	kind := netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | what)
	answers, err := dump(conn, kind, []byte{familyNetdev, unix.NFNETLINK_V0, 0, 0})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EAFNOSUPPORT),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list netdev rules: %w", err)
	}
	return answers, nil
}

// forwardingTables names the tables that have a rule which sends packets to another device. Which
// of a table's chains leads to it does not matter: the answer is a doubt.
func forwardingTables(conn *netlink.Conn) (names []string, err error) {
	answers, err := netdevDump(conn, unix.NFT_MSG_GETRULE)
	for _, answer := range answers {
		table, forwards, err := parseNetdevRule(answer.Data)
		if err != nil {
			return nil, fmt.Errorf("list netdev rules: %w", err)
		}
		if forwards && !slices.Contains(names, table) {
			names = append(names, table)
		}
	}
	return names, err
}

func parseNetdevRule(b []byte) (table string, forwards bool, err error) {
	attributes, err := netfilterAttributes(b)
	if err != nil {
		return "", false, err
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_RULE_TABLE:
			table = attributes.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			attributes.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(expression *netlink.AttributeDecoder) error {
						for expression.Next() {
							forwards = forwards ||
								expression.Type() == unix.NFTA_EXPR_NAME && expression.String() == "fwd"
						}
						return nil
					})
				}
				return nil
			})
		}
	}
	return table, forwards, attributes.Err()
}

func parseNetdevChain(b []byte) (c netdevChain, err error) {
	attributes, err := netfilterAttributes(b)
	if err != nil {
		return c, err
	}
	c.hook = HookNetdevIngress
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = attributes.String()
		case unix.NFTA_CHAIN_HOOK:
			attributes.Nested(func(hook *netlink.AttributeDecoder) error {
				return c.parseHook(hook)
			})
		}
	}
	return c, attributes.Err()
}

func (c *netdevChain) parseHook(hook *netlink.AttributeDecoder) error {
	for hook.Next() {
		switch hook.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			if b := hook.Bytes(); len(b) == 4 && b[3] == hookEgress { // big-endian
				c.hook = HookNetdevEgress
			}
		case unix.NFTA_HOOK_DEV:
			c.devices = append(c.devices, hook.String())
		case hookDevicesType:
			hook.Nested(func(devices *netlink.AttributeDecoder) error {
				for devices.Next() {
					name := devices.String()
					if devices.Type() == devicePrefix {
						name += "*"
					}
					c.devices = append(c.devices, name)
				}
				return nil
			})
		}
	}
	return nil
}

// on reports whether the chain is hooked into that device.
func (c *netdevChain) on(device string) bool {
	return slices.ContainsFunc(c.devices, func(name string) bool {
		prefix, any := strings.CutSuffix(name, "*")
		return name == device || any && strings.HasPrefix(device, prefix)
	})
}

func netfilterAttributes(b []byte) (*netlink.AttributeDecoder, error) {
	if len(b) < netfilterHeader {
		return nil, unix.EBADMSG
	}
	return netlink.NewAttributeDecoder(b[netfilterHeader:])
}
