// SPDX-License-Identifier: Apache-2.0

// Package kerneltest makes private network namespaces for tests, with devices, tc filters and
// programs in them.
package kerneltest

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
)

// NetNS is a private network namespace for as long as the test runs.
type NetNS struct {
	Path  string
	Inode uint64
}

// NewNetNS makes one.
func NewNetNS(t *testing.T) NetNS {
	t.Helper()
	made, done := make(chan error, 1), make(chan struct{})
	var ns NetNS
	t.Cleanup(func() { close(done) })
	go func() {
		_ = kernel.InNetNS("", 0, func() error { // on a thread that ends, and the namespace with it
			err := unix.Unshare(unix.CLONE_NEWNET)
			if err == nil {
				ns.Path = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
				ns.Inode, err = kernel.Inode(ns.Path)
			}
			made <- err
			<-done
			return nil
		})
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	return ns
}

// Do runs f in the namespace, on another thread than the test's.
func (ns NetNS) Do(t *testing.T, f func() error) {
	t.Helper()
	if err := kernel.InNetNS(ns.Path, ns.Inode, f); err != nil {
		t.Fatal(err)
	}
}

// Request sends one message that is to be acknowledged, in the calling thread's namespace.
func Request(kind netlink.HeaderType, head []byte, fill func(*netlink.AttributeEncoder)) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	attributes := netlink.NewAttributeEncoder()
	fill(attributes)
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
		Data: append(head, encoded...),
	})
	return err
}

// Nested is an attribute that holds others.
func Nested(to *netlink.AttributeEncoder, kind uint16, fill func(*netlink.AttributeEncoder)) {
	to.Nested(kind, func(in *netlink.AttributeEncoder) error {
		fill(in)
		return nil
	})
}

// AddLink makes a device of that kind. Its other end, named peer, is where the file descriptor
// leads; 0 is here.
func AddLink(kind, name, peer string, where int) error {
	return Request(unix.RTM_NEWLINK, make([]byte, unix.SizeofIfInfomsg),
		func(a *netlink.AttributeEncoder) {
			a.String(unix.IFLA_IFNAME, name)
			Nested(a, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
				info.String(unix.IFLA_INFO_KIND, kind)
				Nested(info, unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) {
					end := netlink.NewAttributeEncoder()
					end.String(unix.IFLA_IFNAME, peer)
					if where != 0 {
						end.Uint32(unix.IFLA_NET_NS_FD, uint32(where))
					}
					encoded, err := end.Encode()
					if err != nil {
						panic(err)
					}
					data.Bytes(1,
						append(make([]byte, unix.SizeofIfInfomsg),
							encoded...)) // VETH_INFO_PEER, IFLA_NETKIT_PEER_INFO
				})
			})
		})
}

// TCMessage is a struct tcmsg.
func TCMessage(index int, handle, parent, info uint32) []byte {
	b := make([]byte, 20)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], handle)
	binary.NativeEndian.PutUint32(b[12:], parent)
	binary.NativeEndian.PutUint32(b[16:], info)
	return b
}

// AddFilter puts a tc filter on a device's clsact qdisc.
func AddFilter(index int, parent uint32, kind string, priority uint32,
	options func(*netlink.AttributeEncoder)) error {
	protocol := uint32(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8)
	return Request(unix.RTM_NEWTFILTER, TCMessage(index, 0, parent, priority<<16|protocol),
		func(a *netlink.AttributeEncoder) {
			a.String(1, kind) // TCA_KIND
			Nested(a, 2, options)
		})
}

// DeviceIndex finds a device of the calling thread's namespace.
func DeviceIndex(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	return int(request.Uint32()), err
}
