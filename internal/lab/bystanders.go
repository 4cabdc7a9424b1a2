// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// playOtherHost writes the clients' SYNs to an Ethernet device: first in frames
// for another host, which ip_rcv_core frees (PACKET_OTHERHOST), then in frames
// for this one. The answers leave through the TUN device, where the clients are.
func playOtherHost(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const device, syns = "lab1", 4
	var none Expectation
	e, err := w.ethernet(device)
	if err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, syns)
	if err != nil {
		return none, err
	}
	clients := make([]*Client, syns)
	for i := range clients {
		clients[i] = w.Client(server4)
	}
	send := func(to []byte) error {
		for _, c := range clients {
			if err := e.sendTo(to, c.frame(c.syn())); err != nil {
				return err
			}
		}
		return w.Barrier(ctx)
	}
	if err := send([]byte{2, 0, 0, 0, 0, 2}); err != nil {
		return none, err
	}
	if err := wantFate(event.ActionDropped, clients...); err != nil {
		return none, err
	}
	if err := send(e.address); err != nil {
		return none, err
	}
	for _, c := range clients { // through a device with a queue of its own
		if err := c.WaitSYNACK(ctx); err != nil {
			return none, err
		}
	}
	log("%d SYNs in frames for another host were left alone; in frames for this one they were answered", syns)
	expected := Expectation{Counters: counters(nil)}
	expected.owners(server)
	return expected, nil
}

// playSniffer opens two packet sockets that nobody reads. The kernel copies every
// packet for them, in both directions. One has the smallest buffer there is, so
// that copies are freed as lost (packet_rcv). The other keeps them all, so that
// the packet itself, when it is dropped, shares its data with a clone.
func playSniffer(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const closed, healthy = port + 1, 10
	var none Expectation
	if _, err := w.idleServer(any4, 2*healthy); err != nil {
		return none, err
	}
	var sniffer *os.File
	for _, buffer := range []int{1 << 20, 1} {
		if err := w.Do(func() (err error) {
			sniffer, err = openSniffer(buffer)
			return err
		}); err != nil {
			return none, err
		}
		w.keep(sniffer)
	}
	if err := w.Handshakes(ctx, server4, healthy); err != nil {
		return none, err
	}
	dead, err := w.Burst(ctx, at(server4, closed), 3)
	if err != nil {
		return none, err
	}
	if err := wantFate(event.ActionReset, dead...); err != nil {
		return none, err
	}
	lost, err := unix.GetsockoptTpacketStats(int(sniffer.Fd()), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return none, fmt.Errorf("read what the sniffer lost: %w", err)
	}
	if lost.Drops <= uint32(len(dead)) {
		return none, errors.New("the sniffer lost too little to prove anything")
	}
	log("one sniffer lost %d of %d copies; %d SYNs to a closed port were reset, %d clients connected", lost.Drops, lost.Packets, len(dead), healthy)
	return ingress(event.CauseNoListener, event.ActionReset, dead...), nil
}

// openSniffer opens a packet socket for all traffic of the calling thread's
// namespace, with a receive buffer of about so many bytes.
func openSniffer(buffer int) (*os.File, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("size packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}
