// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// playOtherHost writes the clients' SYNs to an Ethernet device: first in frames
// for another host, which ip_rcv_core frees (PACKET_OTHERHOST), then in frames
// for this one. The answers leave through the TUN device, where the clients are.
func playOtherHost(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const device, syns = "lab1", 4
	var none scenario.Expectation
	e, err := w.Ethernet(device)
	if err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, syns)
	if err != nil {
		return none, err
	}
	clients := make([]*world.Client, syns)
	for i := range clients {
		clients[i] = w.Client(world.Server4)
	}
	send := func(to []byte) error {
		for _, c := range clients {
			if err := e.SendTo(to, c.Frame(c.SYNSegment())); err != nil {
				return err
			}
		}
		return w.Barrier(ctx)
	}
	if err := send([]byte{2, 0, 0, 0, 0, 2}); err != nil {
		return none, err
	}
	if err := scenario.WantAction(event.ActionDropped, clients...); err != nil {
		return none, err
	}
	if err := send(e.Address); err != nil {
		return none, err
	}
	for _, c := range clients { // through a device with a queue of its own
		if err := c.WaitSYNACK(ctx); err != nil {
			return none, err
		}
	}
	log("%d SYNs in frames for another host were left alone; in frames for this one they were answered", syns)
	expected := scenario.Expectation{Counters: scenario.Counters(nil)}
	expected.Owners(server)
	return expected, nil
}

// playSniffer opens two packet sockets that nobody reads. The kernel copies every
// packet for them, in both directions. One has the smallest buffer there is, so
// that copies are freed as lost (packet_rcv). The other keeps them all, so that
// the packet itself, when it is dropped, shares its data with a clone.
func playSniffer(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const closed, healthy = world.Port + 1, 10
	var none scenario.Expectation
	if _, err := scenario.IdleServer(w, world.Any4, 2*healthy); err != nil {
		return none, err
	}
	var sniffer *os.File
	for _, buffer := range []int{1 << 20, 1} {
		if err := w.Do(func() (err error) {
			sniffer, err = OpenSniffer(buffer)
			return err
		}); err != nil {
			return none, err
		}
		w.Keep(sniffer)
	}
	if err := w.Handshakes(ctx, world.Server4, healthy); err != nil {
		return none, err
	}
	dead, err := w.Burst(ctx, world.At(world.Server4, closed), 3)
	if err != nil {
		return none, err
	}
	if err := scenario.WantAction(event.ActionReset, dead...); err != nil {
		return none, err
	}
	lost, err := unix.GetsockoptTpacketStats(int(sniffer.Fd()), unix.SOL_PACKET,
		unix.PACKET_STATISTICS)
	if err != nil {
		return none, fmt.Errorf("read what the sniffer lost: %w", err)
	}
	if lost.Drops <= uint32(len(dead)) {
		return none, errors.New("the sniffer lost too little to prove anything")
	}
	log("one sniffer lost %d of %d copies; %d SYNs to a closed port were reset, %d clients connected", lost.Drops, lost.Packets, len(dead), healthy)
	return scenario.Ingress(event.CauseNoListener, event.ActionReset, dead...), nil
}

// OpenSniffer opens a packet socket for all traffic of the calling thread's
// namespace, with a receive buffer of about so many bytes.
func OpenSniffer(buffer int) (*os.File, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		all)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("size packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}
