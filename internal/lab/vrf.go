// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

const (
	vrfName  = "labred"
	vrfTable = 10
)

// joinVRF puts the TUN device into a VRF of its own. The error wraps ErrCannotHold where the kernel has none.
func (w *World) joinVRF() error {
	const table = 1 // IFLA_VRF_TABLE
	attributes := netlink.NewAttributeEncoder()
	attributes.String(unix.IFLA_IFNAME, vrfName)
	attributes.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
		info.String(unix.IFLA_INFO_KIND, "vrf")
		info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
			data.Uint32(table, vrfTable)
			return nil
		})
		return nil
	})
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	if err := w.changeLink(netlink.Create|netlink.Excl, append(make([]byte, unix.SizeofIfInfomsg), encoded...)); err != nil {
		if missing(err) {
			return fmt.Errorf("%w: it needs VRF devices: %w", ErrCannotHold, err)
		}
		return fmt.Errorf("make a VRF device: %w", err)
	}
	var vrf int
	if err := w.Do(func() error {
		if err := setFlags(vrfName, unix.IFF_UP, 0); err != nil {
			return err
		}
		vrf, err = deviceIndex(vrfName)
		return err
	}); err != nil {
		return err
	}
	attributes = netlink.NewAttributeEncoder()
	attributes.String(unix.IFLA_IFNAME, tunName)
	attributes.Uint32(unix.IFLA_MASTER, uint32(vrf))
	if encoded, err = attributes.Encode(); err != nil {
		return err
	}
	return w.changeLink(0, slices.Concat(make([]byte, unix.SizeofIfInfomsg), encoded))
}

// playVRF plays inet_bound_dev_eq: what came in by a VRF's device is for those that are bound to it.
func playVRF(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const drops = 5
	var none Expectation
	if err := w.joinVRF(); err != nil {
		return none, err
	}
	if err := w.sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_l3mdev_accept", "0"); err != nil {
		return none, err
	}
	toDevice := SocketOption{Level: unix.SOL_SOCKET, Name: unix.SO_BINDTODEVICE, Value: []byte(tunName + "\x00")}
	full, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-in-vrf"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: backlog, ReusePort: true, Options: []SocketOption{toDevice}}},
	})
	if err != nil {
		return none, err
	}
	outside, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-outside"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: 512, ReusePort: true, Accept: true}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, server4, backlog+1); err != nil {
		return none, err
	}
	dropped, err := w.unanswered(ctx, server4, drops)
	if err != nil {
		return none, err
	}
	log("%d SYNs through VRF %s got no answer from process %d, none came to process %d", drops, vrfName, full.PID, outside.PID)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: drops,
			Listener: any4, AcceptQueue: overfull, Clients: addresses(dropped), Attempts: first(drops), PIDs: []int{full.PID},
		}},
		Counters: counters(map[event.Counter]uint64{event.CounterListenOverflows: drops, event.CounterListenDrops: drops}),
		Syns:     w.Syns(), Handshakes: drops,
	}
	e.owners(full, outside)
	return e, nil
}

// playSteered plays a program that gives SYNs for one listener's port to another one, whose queue is full: no handshake tells of
// it before the first SYN dies.
func playSteered(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const drops = 5
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	asked, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-asked"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: 512, Accept: true}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, server4, 1); err != nil { // it is looked at before anything dies
		return none, err
	}
	elsewhere := at(server4, port+1)
	full, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-given"),
		Listeners: []ListenConfig{{Addr: at(any4, port+1), Backlog: backlog}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, elsewhere, backlog+1); err != nil {
		return none, err
	}
	if err := w.steer(server4.Port(), full); err != nil {
		return none, err
	}
	dropped, err := w.unanswered(ctx, server4, drops)
	if err != nil {
		return none, err
	}
	log("%d SYNs for the port of process %d were given to process %d and got no answer", drops, asked.PID, full.PID)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: drops,
			Clients: addresses(dropped), Attempts: first(drops), OrNoOwner: true,
		}},
		Counters: counters(map[event.Counter]uint64{event.CounterListenOverflows: drops, event.CounterListenDrops: drops}),
		Syns:     w.Syns(), Handshakes: drops,
	}
	e.owners(full)
	return e, nil
}
