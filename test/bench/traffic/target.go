// SPDX-License-Identifier: Apache-2.0

// Package traffic sends a listener frames on a TUN device, and measures how long they take.
package traffic

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
	Roomy  = 32768
	narrow = 3
	fullAt = narrow + 1
)

// Pool is how many different clients there are for bursts; those that fill the
// accept queue come on top.
const Pool = FloodSize

// FloodSize is how many SYNs a flood drops.
const FloodSize = 45000

// Target is a listener in a namespace of its own, and the device that reaches it.
type Target struct {
	World    *world.World
	Device   *device
	Listener int
	Port     uint16
	Next     Client // of the pool
	filler   Client // beyond it
	counters map[event.Counter]uint64
	Around   func(send func() error) error // the timed part, if not nil
}

func NewTarget(ctx context.Context, port uint16) (_ *Target, err error) {
	world, err := world.New(ctx)
	if err != nil {
		return nil, err
	}
	t := &Target{World: world, Listener: -1, Port: port, filler: Pool}
	defer func() {
		if err != nil {
			_ = t.Close() // what went wrong before says more
		}
	}()
	for _, s := range [][2]string{
		{"net.ipv4.conf.default.rp_filter", "0"}, // inherited by the device
		{"net.core.somaxconn", fmt.Sprint(Roomy)},
		{"net.ipv4.tcp_max_syn_backlog", fmt.Sprint(Roomy)},
		{"net.ipv4.tcp_abort_on_overflow", "0"},
	} {
		if err := world.Sysctl(s[0], s[1]); err != nil {
			return nil, err
		}
	}
	err = world.Do(func() error {
		if t.Device, err = openDevice(); err != nil {
			return err
		}
		t.Listener, err = listen(port)
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
		unix.Listen(fd, Roomy),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

func (t *Target) Close() error {
	var errs []error
	if t.Listener >= 0 {
		errs = append(errs, unix.Close(t.Listener))
	}
	if t.Device != nil {
		errs = append(errs, t.Device.Close())
	}
	return errors.Join(append(errs, t.World.Close())...)
}

// Take gives the next n clients of the pool, so that a tracer's tables see many.
func (t *Target) Take(n int) []Client {
	clients := make([]Client, n)
	for i := range clients {
		clients[i] = t.Next
		t.Next = (t.Next + 1) % Pool
	}
	return clients
}

func (t *Target) Syns(clients []Client) [][]byte {
	frames := make([][]byte, len(clients))
	for i, c := range clients {
		frames[i] = c.syn(t.Port)
	}
	return frames
}

// Fill puts handshakes into the accept queue until nothing more fits.
func (t *Target) Fill() error {
	if err := unix.Listen(t.Listener, narrow); err != nil {
		return fmt.Errorf("narrow the backlog: %w", err)
	}
	for range fullAt {
		c := t.filler
		t.filler++
		if err := t.Device.WriteFrame(c.syn(t.Port)); err != nil {
			return err
		}
		found, err := t.Device.Answers()
		if err != nil {
			return err
		}
		seq, ok := found[c]
		if !ok {
			return fmt.Errorf("fill accept queue: client %d has no SYN-ACK", c)
		}
		if err := t.Device.WriteFrame(c.ACK(t.Port, seq)); err != nil {
			return err
		}
	}
	t.filler = Pool + (t.filler-Pool)%8192 // frames of a client are built when needed
	return nil
}

// Empty accepts and closes everything that waits, and makes the queue roomy.
func (t *Target) Empty() error {
	for {
		fd, _, err := unix.Accept4(t.Listener, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			_, err := t.Device.Answers()
			return errors.Join(err, unix.Listen(t.Listener, Roomy))
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		default:
			unix.Close(fd)
		}
	}
}

// Mark remembers the namespace's counters for expect.
func (t *Target) Mark() (err error) {
	t.counters, err = t.World.Counters()
	return err
}

// Expect fails unless counters have moved since mark by exactly n.
func (t *Target) Expect(n int, counters ...event.Counter) error {
	now, err := t.World.Counters()
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
