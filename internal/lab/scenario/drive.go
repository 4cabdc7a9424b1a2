// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"fmt"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
	"net/netip"
	"os"
	"strings"
)

// Each calls f for each client, and waits until the kernel has taken all that it sent.
func Each(ctx context.Context, w *world.World, clients []*world.Client,
	f func(*world.Client) error) error {
	for _, c := range clients {
		if err := f(c); err != nil {
			return err
		}
	}
	return w.Barrier(ctx)
}

// HalfOpen starts a server that never accepts and sends it n SYNs, all of which must be
// answered: n half-open handshakes, where no SYN cookie was the answer.
func HalfOpen(ctx context.Context, w *world.World, f world.Family, backlog, n int) (*server.Server,
	[]*world.Client, error) {
	server, err := IdleServer(w, f.Listener, backlog)
	if err != nil {
		return nil, nil, err
	}
	clients, err := w.Burst(ctx, f.Server, n)
	if err != nil {
		return nil, nil, err
	}
	return server, clients, WantAnswers(clients, n)
}

// Split divides clients by a property, keeping their order.
func Split(clients []*world.Client, property func(*world.Client) bool) (with,
	without []*world.Client) {
	for _, c := range clients {
		if property(c) {
			with = append(with, c)
		} else {
			without = append(without, c)
		}
	}
	return with, without
}

// Unanswered sends a burst of which no SYN may be answered.
func Unanswered(ctx context.Context, w *world.World, server netip.AddrPort, n int) ([]*world.Client,
	error) {
	clients, err := w.Burst(ctx, server, n)
	if err != nil {
		return nil, err
	}
	return clients, WantAnswers(clients, 0)
}

// Addresses lists the clients' own addresses.
func Addresses(clients []*world.Client) []netip.AddrPort {
	list := make([]netip.AddrPort, len(clients))
	for i, c := range clients {
		list[i] = c.Local
	}
	return list
}

// First returns attempt 1 for each of n records.
func First(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = 1
	}
	return list
}

// Overfull is an accept queue that holds as many as listen() allowed, and the one more that the
// kernel lets in.
var Overfull = Queue{Len: world.Capacity, Limit: world.Backlog}

// IdleServer starts a process that listens and never accepts.
func IdleServer(w *world.World, addr netip.AddrPort, backlog int) (*server.Server, error) {
	return server.Start(w,
		server.Config{Listeners: []server.ListenConfig{{Addr: addr, Backlog: backlog}}})
}

// FullServer starts one whose accept queue is full.
func FullServer(ctx context.Context, w *world.World) (*server.Server, error) {
	server, err := IdleServer(w, world.Any4, world.Backlog)
	if err != nil {
		return nil, err
	}
	return server, w.Handshakes(ctx, world.Server4, world.Capacity)
}

// Established counts the connections the server's side has, accepted or not.
func Established(w *world.World, port uint16) (n int, err error) {
	var table []byte
	err = w.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			part, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil && !os.IsNotExist(err) { // no IPv6
				return err
			}
			table = append(table, part...)
		}
		return nil
	})
	local := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(table)) {
		// number, local and remote address, state (01 is TCP_ESTABLISHED)
		fields := strings.Fields(line)
		if len(fields) > 3 && strings.HasSuffix(fields[1], local) && fields[3] == "01" {
			n++
		}
	}
	return n, err
}
