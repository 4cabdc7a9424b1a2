// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/world"
)

// Backlogs of the listener: one that no burst fills and one that is full after
// fullAt handshakes (sk_acceptq_is_full is >, not >=).
const (
	roomy  = 32768
	narrow = 3
	fullAt = narrow + 1
)

// pool is how many different clients there are for bursts; those that fill the
// accept queue come on top.
const pool = floodSize

// target is a listener in a namespace of its own, and the device that reaches it.
type target struct {
	world    *world.World
	device   *device
	listener int
	port     uint16
	next     client // of the pool
	filler   client // beyond it
	counters map[event.Counter]uint64
	around   func(send func() error) error // the timed part, if not nil
}

func newTarget(ctx context.Context, port uint16) (_ *target, err error) {
	world, err := world.New(ctx)
	if err != nil {
		return nil, err
	}
	t := &target{world: world, listener: -1, port: port, filler: pool}
	defer func() {
		if err != nil {
			_ = t.Close() // what went wrong before says more
		}
	}()
	for _, s := range [][2]string{
		{"net.ipv4.conf.default.rp_filter", "0"}, // inherited by the device
		{"net.core.somaxconn", fmt.Sprint(roomy)},
		{"net.ipv4.tcp_max_syn_backlog", fmt.Sprint(roomy)},
		{"net.ipv4.tcp_abort_on_overflow", "0"},
	} {
		if err := world.Sysctl(s[0], s[1]); err != nil {
			return nil, err
		}
	}
	err = world.Do(func() error {
		if t.device, err = openDevice(); err != nil {
			return err
		}
		t.listener, err = listen(port)
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func listen(port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open listener: %w", err)
	}
	err = errors.Join(
		// What is accepted dies with an RST at once, without FINs that nobody answers.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}),
		unix.Listen(fd, roomy),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

func (t *target) Close() error {
	var errs []error
	if t.listener >= 0 {
		errs = append(errs, unix.Close(t.listener))
	}
	if t.device != nil {
		errs = append(errs, t.device.Close())
	}
	return errors.Join(append(errs, t.world.Close())...)
}

// take gives the next n clients of the pool, so that a tracer's tables see many.
func (t *target) take(n int) []client {
	clients := make([]client, n)
	for i := range clients {
		clients[i] = t.next
		t.next = (t.next + 1) % pool
	}
	return clients
}

func (t *target) syns(clients []client) [][]byte {
	frames := make([][]byte, len(clients))
	for i, c := range clients {
		frames[i] = c.syn(t.port)
	}
	return frames
}

// fill puts handshakes into the accept queue until nothing more fits.
func (t *target) fill() error {
	if err := unix.Listen(t.listener, narrow); err != nil {
		return fmt.Errorf("narrow the backlog: %w", err)
	}
	for range fullAt {
		c := t.filler
		t.filler++
		if err := t.device.writeFrame(c.syn(t.port)); err != nil {
			return err
		}
		found, err := t.device.answers()
		if err != nil {
			return err
		}
		seq, ok := found[c]
		if !ok {
			return fmt.Errorf("fill accept queue: client %d has no SYN-ACK", c)
		}
		if err := t.device.writeFrame(c.ack(t.port, seq)); err != nil {
			return err
		}
	}
	t.filler = pool + (t.filler-pool)%8192 // frames of a client are built when needed
	return nil
}

// empty accepts and closes everything that waits, and makes the queue roomy.
func (t *target) empty() error {
	for {
		fd, _, err := unix.Accept4(t.listener, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			_, err := t.device.answers()
			return errors.Join(err, unix.Listen(t.listener, roomy))
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		default:
			unix.Close(fd)
		}
	}
}

// mark remembers the namespace's counters for expect.
func (t *target) mark() (err error) {
	t.counters, err = t.world.Counters()
	return err
}

// expect fails unless counters have moved since mark by exactly n.
func (t *target) expect(n int, counters ...event.Counter) error {
	now, err := t.world.Counters()
	if err != nil {
		return err
	}
	for _, c := range counters {
		if moved := now[c] - t.counters[c]; moved != uint64(n) {
			return fmt.Errorf("%s moved by %d, want %d: the burst did not do what it is for", c, moved, n)
		}
	}
	return nil
}
