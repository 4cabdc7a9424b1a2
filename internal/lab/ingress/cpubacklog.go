// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// playCPUBacklog overflows a CPU's receive backlog without touching its limit,
// which is the whole machine's.
//
// A second namespace is the router between the clients and the server. Its
// neighbour table does not know the server yet, so it queues their SYNs. The
// server's ARP reply then lets them all go in the softirq that receives it
// (neigh_update), and each is put on this CPU's backlog (veth_xmit, netif_rx),
// which that same CPU can only empty once the softirq is over. The queue takes
// netdev_max_backlog+1 (enqueue_to_backlog compares with <=), and the rest, the
// last ones, are dropped.
//
// The queue is back to normal a few milliseconds later. Packets of others are
// safe meanwhile: while it is over its limit nothing else runs on that CPU.
func playCPUBacklog(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const excess, most = 6, 6000
	var none scenario.Expectation
	limit, err := hostBacklog()
	if err != nil {
		return none, fmt.Errorf("%w: it needs to know net.core.netdev_max_backlog: %w",
			world.ErrCannotHold, err)
	}
	if limit > most {
		return none, fmt.Errorf("%w: net.core.netdev_max_backlog is %d, it can fill %d",
			world.ErrCannotHold, limit, most)
	}
	var (
		near    = world.Veth{Name: "lab1", Address: [6]byte{2, 0, 0, 0, 0, 1}}
		far     = world.Veth{Name: "lab1", Address: [6]byte{2, 0, 0, 0, 0, 2}}
		address = [4]byte{10, 98, 0, 1}
		gateway = [4]byte{10, 98, 0, 2}
		server  = netip.AddrPortFrom(netip.AddrFrom4(address), world.Port)
	)
	router, err := world.New(ctx)
	if err != nil {
		return none, err
	}
	w.Keep(router)
	if err := router.Connect(near, w, far); err != nil {
		return none, err
	}
	// arp_ignore=8: the server's kernel does not answer for itself.
	if err := errors.Join(
		w.Sysctls("net.ipv4.conf."+far.Name+".rp_filter", "0",
			"net.ipv4.conf."+far.Name+".arp_ignore", "8",
			"net.ipv4.tcp_syncookies", "1", "net.core.somaxconn", strconv.Itoa(2*most)),
		w.Do(func() error { return world.Configure4(far.Name, server.Addr(), 24) }),
		router.Sysctls("net.ipv4.ip_forward", "1",
			"net.ipv4.neigh."+near.Name+".unres_qlen_bytes", "67108864",
			"net.ipv4.neigh."+near.Name+".mcast_solicit", "100"),
		router.Do(func() error {
			return world.Configure4(near.Name,
				netip.AddrFrom4(gateway), 24)
		}),
	); err != nil {
		return none, err
	}
	if _, err := scenario.IdleServer(w, world.Any4, 2*most); err != nil {
		return none, err
	}
	clients := make([]*world.Client, limit+1+excess)
	for i := range clients {
		clients[i] = w.Client(server)
		if err := router.InjectFrame(clients[i].Frame(clients[i].SYNSegment())); err != nil {
			return none, err
		}
	}
	if err := sendFrame(w, far.Name, world.ARPReply(far, address, near, gateway)); err != nil {
		return none, err
	}
	// The first answer means that the softirq is over, the last that the CPU has
	// worked off its backlog, in order. What was dropped is what came last; it is
	// a little more than the excess when other packets were in the queue.
	if err := clients[0].WaitSYNACK(ctx); err != nil {
		return none, err
	}
	dropped, err := receiveDrops(w, far.Name)
	if err != nil {
		return none, err
	}
	if dropped < excess || dropped > len(clients)/2 {
		return none, fmt.Errorf("the backlog of %d dropped %d of %d packets", limit,
			dropped, len(clients))
	}
	fitted, dead := clients[:len(clients)-dropped], clients[len(clients)-dropped:]
	for _, c := range fitted {
		if err := c.WaitSYNACK(ctx); err != nil {
			return none, err
		}
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	if err := scenario.WantAction(event.ActionDropped, dead...); err != nil {
		return none, err
	}
	log("%d SYNs arrived inside one softirq; the backlog held %d, %d got no answer",
		len(clients), len(fitted), len(dead))
	return scenario.Ingress(event.CauseCPUBacklog, event.ActionDropped, dead...), nil
}

// hostBacklog reads the limit. It is not there in other namespaces than the
// first one, so neither can it be changed from a World.
func hostBacklog() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/core/netdev_max_backlog")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// receiveDrops returns how many received packets a device's statistics say were
// dropped before IP.
func receiveDrops(w *world.World, device string) (dropped int, err error) {
	var table []byte
	if err := w.Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	}); err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(table)) {
		// received bytes, packets, errors, drops, ...
		if name, values, ok := strings.Cut(line, ":"); ok &&
			strings.TrimSpace(name) == device {
			if fields := strings.Fields(values); len(fields) > 3 {
				return strconv.Atoi(fields[3])
			}
		}
	}
	return 0, fmt.Errorf("no statistics of %s", device)
}

// sendFrame sends one Ethernet frame from a device of the namespace.
func sendFrame(w *world.World, device string, frame []byte) error {
	return w.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
			0) // protocol 0: receives nothing
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		defer unix.Close(fd)
		index, err := world.DeviceIndex(device)
		if err != nil {
			return err
		}
		if err := unix.Sendto(fd, frame, 0,
			&unix.SockaddrLinklayer{Ifindex: index}); err != nil {
			return fmt.Errorf("send frame from %s: %w", device, err)
		}
		return nil
	})
}
