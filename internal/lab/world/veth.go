// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Veth is one end of a cable between two namespaces.
type Veth struct {
	Name    string
	Address [6]byte
}

// Connect lays a cable from this namespace to another one. The error wraps
// ErrCannotHold where the kernel has no veth devices.
func (w *World) Connect(near Veth, other *World, far Veth) error {
	const peer = 1 // VETH_INFO_PEER
	link := make([]byte, unix.SizeofIfInfomsg)
	attributes := netlink.NewAttributeEncoder()
	attributes.String(unix.IFLA_IFNAME, near.Name)
	attributes.Bytes(unix.IFLA_ADDRESS, near.Address[:])
	attributes.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
		info.String(unix.IFLA_INFO_KIND, "veth")
		info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
			ends := netlink.NewAttributeEncoder()
			ends.String(unix.IFLA_IFNAME, far.Name)
			ends.Bytes(unix.IFLA_ADDRESS, far.Address[:])
			ends.Uint32(unix.IFLA_NET_NS_FD, uint32(other.Ns.Fd()))
			encoded, err := ends.Encode()
			data.Bytes(peer, append(make([]byte, unix.SizeofIfInfomsg), encoded...))
			return err
		})
		return nil
	})
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	if err = w.ChangeLink(netlink.Create|netlink.Excl,
		slices.Concat(link, encoded)); err == nil {
		return nil
	}
	if Missing(err) {
		return fmt.Errorf("%w: it needs veth devices: %w", ErrCannotHold, err)
	}
	return fmt.Errorf("make veth devices: %w", err)
}

// ChangeLink makes a device in this namespace, or changes one: message is a struct ifinfomsg and
// attributes.
func (w *World) ChangeLink(flags netlink.HeaderFlags, message []byte) error {
	return w.Do(func() error {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil) // of this thread's namespace
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.RTM_NEWLINK,
				Flags: netlink.Request | netlink.Acknowledge | flags},
			Data: message,
		})
		return err
	})
}

// ARPReply is the frame in which one end tells the other that an IPv4 address
// is its own.
func ARPReply(from Veth, sender [4]byte, to Veth, target [4]byte) []byte {
	frame := append(append(append([]byte{}, to.Address[:]...), from.Address[:]...), 0x08, 0x06)
	frame = append(frame, 0, 1, 0x08, 0x00, 6, 4)   // Ethernet, IPv4
	frame = binary.BigEndian.AppendUint16(frame, 2) // reply
	frame = append(append(frame, from.Address[:]...), sender[:]...)
	return append(append(frame, to.Address[:]...), target[:]...)
}
