// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/synspy/synspy/internal/event"
)

// What a listener does. Clients are pre-built frames on a TUN device, so that one side of
// each handshake is all that is counted.

// synsAnswered are SYNs that each make a request and are answered.
func synsAnswered(t *target, _ int) (*session, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	return &session{close: t.empty, play: func(n int, w *stopwatch) error {
		clients := t.take(n)
		answers, err := t.answered(clients, w)
		if err != nil {
			return err
		}
		for c := range answers { // or they would be answered again later
			if err := t.device.writeFrame(c.rst(t.port)); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// answered sends SYNs in one lap and reads what answers them.
func (t *target) answered(clients []client, w *stopwatch) (map[client]uint32, error) {
	if err := t.writeAll(t.syns(clients), w); err != nil {
		return nil, err
	}
	answers, err := t.device.answers()
	if err != nil {
		return nil, err
	}
	for _, c := range clients {
		if _, ok := answers[c]; !ok {
			return nil, fmt.Errorf("the SYN of client %d was not answered", c)
		}
	}
	return answers, nil
}

// shake makes whole handshakes, each half in one lap.
func (t *target) shake(n int, w *stopwatch) error {
	clients := t.take(n)
	answers, err := t.answered(clients, w)
	if err != nil {
		return err
	}
	frames := make([][]byte, n)
	for i, c := range clients {
		frames[i] = c.ack(t.port, answers[c])
	}
	return t.writeAll(frames, w)
}

// handshakes are SYNs and their ACKs, until the connection is in the accept queue.
func handshakes(t *target, _ int) (*session, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	return &session{close: t.empty, play: func(n int, w *stopwatch) error {
		if err := t.shake(n, w); err != nil {
			return err
		}
		return t.hangUp(n, &stopwatch{})
	}}, nil
}

// connections are handshakes that are accepted, and closed by an RST.
func connections(t *target, _ int) (*session, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	return &session{close: t.empty, play: func(n int, w *stopwatch) error {
		if err := t.shake(n, w); err != nil {
			return err
		}
		return t.hangUp(n, w)
	}}, nil
}

// hangUp accepts and closes n connections, in a lap each.
func (t *target) hangUp(n int, w *stopwatch) error {
	fds := make([]int, n)
	err := w.lap(func() (err error) {
		for i := range fds {
			if fds[i], err = accept(t.listener); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.lap(func() error {
		for _, fd := range fds {
			if err := closeRaw(fd); err != nil {
				return err
			}
		}
		return nil
	})
}

// synsDropped are SYNs to a full accept queue.
func synsDropped(t *target, _ int) (*session, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	if err := t.fill(); err != nil {
		return nil, err
	}
	return &session{close: t.empty, play: func(n int, w *stopwatch) error {
		return t.dropped(t.syns(t.take(n)), w)
	}}, nil
}

// dropped sends frames that all are dropped by the full accept queue.
func (t *target) dropped(frames [][]byte, w *stopwatch) error {
	if err := t.mark(); err != nil {
		return err
	}
	if err := t.writeAll(frames, w); err != nil {
		return err
	}
	return t.expect(len(frames), event.CounterListenOverflows, event.CounterListenDrops)
}

// cookieACKsDropped are ACKs of SYN cookies that come when the accept queue has filled up.
func cookieACKsDropped(t *target, total int) (_ *session, err error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		return nil, err
	}
	// A cookie holds for a minute at least (MAX_SYNCOOKIE_AGE).
	var frames [][]byte
	for len(frames) < min(total, pool) {
		clients := t.take(chunkOperations)
		answers, err := t.answered(clients, &stopwatch{})
		if err != nil {
			return nil, err
		}
		for _, c := range clients {
			frames = append(frames, c.ack(t.port, answers[c]))
		}
	}
	if err := t.fill(); err != nil {
		return nil, err
	}
	next := 0
	return &session{
		play: func(n int, w *stopwatch) error {
			next %= len(frames) - n + 1
			mine := frames[next : next+n]
			next += n
			return t.dropped(mine, w)
		},
		close: func() error {
			return errors.Join(t.empty(), t.world.Sysctl("net.ipv4.tcp_syncookies", "1"))
		},
	}, nil
}
