// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

const (
	vrfName  = "labred"
	vrfTable = 10
)

// joinVRF puts the TUN device into a VRF of its own. The error wraps ErrCannotHold where the kernel
// has none.
func joinVRF(w *world.World) error {
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
	if err := w.ChangeLink(netlink.Create|netlink.Excl,
		append(make([]byte, unix.SizeofIfInfomsg), encoded...)); err != nil {
		if world.Missing(err) {
			return fmt.Errorf("%w: it needs VRF devices: %w", world.ErrCannotHold, err)
		}
		return fmt.Errorf("make a VRF device: %w", err)
	}
	var vrf int
	if err := w.Do(func() error {
		if err := world.SetFlags(vrfName, unix.IFF_UP, 0); err != nil {
			return err
		}
		vrf, err = world.DeviceIndex(vrfName)
		return err
	}); err != nil {
		return err
	}
	attributes = netlink.NewAttributeEncoder()
	attributes.String(unix.IFLA_IFNAME, world.TUNName)
	attributes.Uint32(unix.IFLA_MASTER, uint32(vrf))
	if encoded, err = attributes.Encode(); err != nil {
		return err
	}
	return w.ChangeLink(0, slices.Concat(make([]byte, unix.SizeofIfInfomsg), encoded))
}

// playVRF plays inet_bound_dev_eq: what came in by a VRF's device is for those that are bound to
// it.
func playVRF(ctx context.Context, w *world.World, log func(string, ...any)) (scenario.Expectation,
	error) {
	const drops = 5
	var none scenario.Expectation
	if err := joinVRF(w); err != nil {
		return none, err
	}
	if err := w.Sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_l3mdev_accept",
		"0"); err != nil {
		return none, err
	}
	toDevice := server.SocketOption{Level: unix.SOL_SOCKET, Name: unix.SO_BINDTODEVICE,
		Value: []byte(world.TUNName + "\x00")}
	full, err := server.Start(w, server.Config{
		Comm: []byte("lab-in-vrf"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: world.Backlog,
			ReusePort: true, Options: []server.SocketOption{toDevice}}},
	})
	if err != nil {
		return none, err
	}
	outside, err := server.Start(w, server.Config{
		Comm: []byte("lab-outside"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: 512, ReusePort: true,
			Accept: true}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, world.Server4, world.Backlog+1); err != nil {
		return none, err
	}
	dropped, err := scenario.Unanswered(ctx, w, world.Server4, drops)
	if err != nil {
		return none, err
	}
	log("%d SYNs through VRF %s got no answer from process %d, none came to process %d", drops,
		vrfName, full.PID, outside.PID)
	e := foundFull(w, dropped)
	e.Records[0].Listener, e.Records[0].AcceptQueue = world.Any4, scenario.Overfull
	e.Records[0].PIDs = []int{full.PID}
	e.Owners(full, outside)
	return e, nil
}

// playSteered plays a program that gives SYNs for one listener's port to another one, whose queue
// is full: no handshake tells of it before the first SYN dies.
func playSteered(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const drops = 5
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	asked, err := server.Start(w, server.Config{
		Comm:      []byte("lab-asked"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: 512, Accept: true}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, world.Server4,
		1); err != nil { // it is looked at before anything dies
		return none, err
	}
	elsewhere := world.At(world.Server4, world.Port+1)
	full, err := server.Start(w, server.Config{
		Comm: []byte("lab-given"),
		Listeners: []server.ListenConfig{{Addr: world.At(world.Any4, world.Port+1),
			Backlog: world.Backlog}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, elsewhere, world.Backlog+1); err != nil {
		return none, err
	}
	if err := server.Steer(w, world.Server4.Port(), full); err != nil {
		return none, err
	}
	dropped, err := scenario.Unanswered(ctx, w, world.Server4, drops)
	if err != nil {
		return none, err
	}
	log("%d SYNs for the port of process %d were given to process %d and got no answer", drops,
		asked.PID, full.PID)
	e := foundFull(w, dropped)
	e.Records[0].OrNoOwner = true
	e.Owners(full)
	return e, nil
}
