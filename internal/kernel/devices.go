// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Device is a network device with what may take packets before the IP stack sees them.
type Device struct {
	Index uint32
	Name  string // as whoever made it chose: it may hold any bytes but / : and white space
	Kind  string // "veth", "bridge"; empty for hardware
	// Master is the index of the bridge, bond or VRF that it is part of, 0 for none.
	Master uint32
	// Link is the index of its other end, 0 for none; LinkNetNS is the id that the device's
	// namespace has for the one where that is, nil where it is the same.
	Link      uint32
	LinkNetNS *int32
	Takers    []Taker
}

// Taker is a BPF program on a device, another tc filter whose action is to drop or to redirect, or
// a rule of nftables that redirects.
type Taker struct {
	Hook   Hook
	ID     uint32 // of the program; 0 for a filter
	Name   string // of the program, as whoever loaded it chose; empty where unknown
	Filter string // the filter's kind: "flower"
	// Redirect says that the filter sends packets to another device, and does not drop them.
	Redirect bool
}

// Hook is where on a device packets are taken.
type Hook string

// The hooks, in the order in which an arriving packet meets them; those of egress take what is sent
// through the device, to its other end.
const (
	HookXDPOffload Hook = "offloaded XDP"
	HookXDPNative  Hook = "native XDP"
	HookXDPGeneric Hook = "generic XDP"
	HookTCXIngress Hook = "tcx ingress"
	HookTCIngress  Hook = "tc ingress"
	HookTCXEgress  Hook = "tcx egress"
	HookTCEgress   Hook = "tc egress"
	HookNetkit     Hook = "netkit"
)

// Egress reports whether it takes what is sent through the device.
func (h Hook) Egress() bool {
	return h == HookTCXEgress || h == HookTCEgress || h == HookNetkit || h == HookNetdevEgress
}

// Of include/uapi/linux/if_link.h, pkt_sched.h, pkt_cls.h, act_api.h and net_namespace.h.
const (
	xdpDriver, xdpGeneric, xdpHardware = 5, 6, 7 // IFLA_XDP_DRV_PROG_ID and so on
	skipStatistics                     = 8       // RTEXT_FILTER_SKIP_STATS
	tcMessageSize                      = 20      // struct tcmsg
	tcIngress, tcEgress                = 0xfffffff2, 0xfffffff3
	tcKind, tcOptions                  = 1, 2 // TCA_KIND, TCA_OPTIONS
	tcProgramID                        = 11   // TCA_BPF_ID
	actKind, actOptions                = 1, 2 // TCA_ACT_KIND, TCA_ACT_OPTIONS
	gactParameters                     = 2    // TCA_GACT_PARMS
	gactAction                         = 8    // offset in struct tc_gact
	actShot                            = 2    // TC_ACT_SHOT
	mirredAction                       = 20   // offset of eaction in struct tc_mirred, which is at gact's attribute
	egressRedirect, ingressRedirect    = 1, 3 // TCA_EGRESS_REDIR, TCA_INGRESS_REDIR; others mirror
	nsIDAttribute, nsFDAttribute       = 1, 3 // NETNSA_NSID, NETNSA_FD
	nsIDMessageSize                    = 4    // struct rtgenmsg, padded
)

// filterActions is which option of a kind of filter has its actions (TCA_FLOWER_ACT and so on).
func filterActions() map[string]uint16 {
	return map[string]uint16{"u32": 7, "flower": 3, "matchall": 2, "basic": 3, "fw": 4,
		"bpf": 1}
}

// Devices lists the network devices of the calling thread's namespace, with the XDP programs and tc
// filters on them: what rtnetlink tells, which takes no privileges. tcx and netkit have no place
// there. A list comes even with an error, which then says what is missing from it.
func Devices() ([]Device, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	defer conn.Close()
	attributes := netlink.NewAttributeEncoder()
	attributes.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
	encoded, err := attributes.Encode()
	if err != nil {
		return nil, err
	}
	answers, err := dump(conn, unix.RTM_GETLINK,
		append(make([]byte, unix.SizeofIfInfomsg), encoded...))
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	var list []Device
	var errs []error
	for _, answer := range answers {
		d, err := parseLink(answer.Data)
		if err != nil {
			errs = append(errs, fmt.Errorf("read network device: %w", err))
			continue
		}
		for _, side := range []struct {
			parent uint32
			hook   Hook
		}{{tcIngress, HookTCIngress}, {tcEgress, HookTCEgress}} {
			takers, err := tcFilters(conn, d.Index, side.parent, side.hook)
			if err != nil && !errors.Is(err, unix.ENODEV) { // it went meanwhile
				errs = append(errs, fmt.Errorf("list tc filters of %q: %w", d.Name,
					err))
			}
			d.Takers = append(d.Takers, takers...)
		}
		list = append(list, d)
	}
	return list, errors.Join(errs...)
}

func dump(conn *netlink.Conn, kind netlink.HeaderType, request []byte) ([]netlink.Message, error) {
	return conn.Execute(netlink.Message{Header: netlink.Header{Type: kind,
		Flags: netlink.Request | netlink.Dump}, Data: request})
}

// parseLink reads a struct ifinfomsg and its attributes.
func parseLink(b []byte) (Device, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Device{}, unix.EBADMSG
	}
	d := Device{Index: binary.NativeEndian.Uint32(b[4:])}
	attributes, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return Device{}, err
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFLA_IFNAME:
			d.Name = attributes.String()
		case unix.IFLA_MASTER:
			d.Master = attributes.Uint32()
		case unix.IFLA_LINK:
			d.Link = attributes.Uint32()
		case unix.IFLA_LINK_NETNSID:
			id := attributes.Int32()
			d.LinkNetNS = &id
		case unix.IFLA_LINKINFO:
			attributes.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() == unix.IFLA_INFO_KIND {
						d.Kind = info.String()
					}
				}
				return nil
			})
		case unix.IFLA_XDP:
			attributes.Nested(func(xdp *netlink.AttributeDecoder) error {
				for xdp.Next() {
					hook, ok := map[uint16]Hook{xdpDriver: HookXDPNative,
						xdpGeneric: HookXDPGeneric, xdpHardware: HookXDPOffload}[xdp.Type()]
					if ok {
						d.Takers = append(d.Takers,
							Taker{Hook: hook, ID: xdp.Uint32()})
					}
				}
				return nil
			})
		}
	}
	return d, attributes.Err()
}

// tcFilters lists the filters of a clsact or ingress qdisc; none where there is no such qdisc.
func tcFilters(conn *netlink.Conn, index, parent uint32, hook Hook) ([]Taker, error) {
	request := make([]byte, tcMessageSize)
	binary.NativeEndian.PutUint32(request[4:], index)
	binary.NativeEndian.PutUint32(request[12:], parent)
	answers, err := dump(conn, unix.RTM_GETTFILTER, request)
	if err != nil {
		return nil, err
	}
	var takers []Taker
	for _, answer := range answers {
		t, ok, err := parseFilter(answer.Data)
		if err != nil {
			return takers, err
		}
		if t.Hook = hook; ok && !slices.Contains(takers, t) {
			takers = append(takers, t)
		}
	}
	return takers, nil
}

// parseFilter reads a struct tcmsg and its attributes. It is not ok with a filter that neither is a
// program nor drops or redirects, or with what the kernel tells of the list that filters are in.
func parseFilter(b []byte) (t Taker, ok bool, err error) {
	if len(b) < tcMessageSize {
		return t, false, unix.EBADMSG
	}
	attributes, err := netlink.NewAttributeDecoder(b[tcMessageSize:])
	if err != nil {
		return t, false, err
	}
	for attributes.Next() {
		switch attributes.Type() {
		case tcKind:
			t.Filter = attributes.String()
		case tcOptions:
			attributes.Nested(func(options *netlink.AttributeDecoder) error {
				actions := filterActions()[t.Filter]
				for options.Next() {
					switch kind := options.Type(); {
					case t.Filter == "bpf" && kind == tcProgramID:
						t.ID, ok = options.Uint32(), true
					case actions != 0 && kind == actions:
						options.Nested(func(list *netlink.AttributeDecoder) error {
							for list.Next() { // one an action, by its place
								list.Nested(func(action *netlink.AttributeDecoder) error {
									drop, redirect := takes(
										action)
									ok, t.Redirect = ok ||
										drop || redirect, t.Redirect || redirect
									return nil
								})
							}
							return nil
						})
					}
				}
				return nil
			})
		}
	}
	if t.ID != 0 {
		t.Filter, t.Redirect = "", false // the program decides
	}
	return t, ok, attributes.Err()
}

// takes reports whether an action is gact's drop, or a redirection by mirred.
func takes(action *netlink.AttributeDecoder) (drop, redirect bool) {
	kind := ""
	var parameters []byte
	for action.Next() {
		switch action.Type() {
		case actKind:
			kind = action.String()
		case actOptions:
			action.Nested(func(options *netlink.AttributeDecoder) error {
				for options.Next() {
					if options.Type() == gactParameters {
						parameters = options.Bytes()
					}
				}
				return nil
			})
		}
	}
	switch {
	case kind == "gact" && len(parameters) >= gactAction+4:
		return binary.NativeEndian.Uint32(parameters[gactAction:]) == actShot, false
	case kind == "mirred" && len(parameters) >= mirredAction+4:
		to := binary.NativeEndian.Uint32(parameters[mirredAction:])
		return false, to == egressRedirect || to == ingressRedirect
	}
	return false, false
}

// NetNSID returns the id that the calling thread's namespace has for the one at the path, as
// LinkNetNS of a device has it; negative where it has none.
func NetNSID(path string) (int32, error) {
	file, err := os.Open(path)
	if err != nil {
		return -1, fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return -1, fmt.Errorf("ask for id of network namespace: %w", err)
	}
	defer conn.Close()
	attributes := netlink.NewAttributeEncoder()
	attributes.Uint32(nsFDAttribute, uint32(file.Fd()))
	encoded, err := attributes.Encode()
	if err != nil {
		return -1, err
	}
	answers, err := conn.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETNSID,
		Flags: netlink.Request},
		Data: append(make([]byte, nsIDMessageSize), encoded...)})
	if err != nil {
		return -1, fmt.Errorf("ask for id of network namespace: %w", err)
	}
	id := int32(-1) // NETNSA_NSID_NOT_ASSIGNED
	for _, answer := range answers {
		if len(answer.Data) < nsIDMessageSize {
			continue
		}
		decoder, err := netlink.NewAttributeDecoder(answer.Data[nsIDMessageSize:])
		if err != nil {
			return -1, fmt.Errorf("read id of network namespace: %w", err)
		}
		for decoder.Next() {
			if decoder.Type() == nsIDAttribute {
				id = decoder.Int32()
			}
		}
	}
	return id, nil
}
