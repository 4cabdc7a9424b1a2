// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"errors"
	"fmt"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/test/bench/traffic"
)

// What a listener does. Clients are pre-built frames on a TUN device, so that one side of
// each handshake is all that is counted.

// synsAnswered are SYNs that each make a request and are answered.
func synsAnswered(t *traffic.Target, _ int) (*session, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	return &session{close: t.Empty, play: func(n int, w *traffic.Stopwatch) error {
		clients := t.Take(n)
		answers, err := answered(t, clients, w)
		if err != nil {
			return err
		}
		for c := range answers { // or they would be answered again later
			if err := t.Device.WriteFrame(c.RST(t.Port)); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// answered sends SYNs in one lap and reads what answers them.
func answered(t *traffic.Target, clients []traffic.Client, w *traffic.Stopwatch) (map[traffic.Client]uint32, error) {
	if err := writeAll(t, t.Syns(clients), w); err != nil {
		return nil, err
	}
	answers, err := t.Device.Answers()
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
func shake(t *traffic.Target, n int, w *traffic.Stopwatch) error {
	clients := t.Take(n)
	answers, err := answered(t, clients, w)
	if err != nil {
		return err
	}
	frames := make([][]byte, n)
	for i, c := range clients {
		frames[i] = c.ACK(t.Port, answers[c])
	}
	return writeAll(t, frames, w)
}

// handshakes are SYNs and their ACKs, until the connection is in the accept queue.
func handshakes(t *traffic.Target, _ int) (*session, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	return &session{close: t.Empty, play: func(n int, w *traffic.Stopwatch) error {
		if err := shake(t, n, w); err != nil {
			return err
		}
		return hangUp(t, n, &traffic.Stopwatch{})
	}}, nil
}

// connections are handshakes that are accepted, and closed by an RST.
func connections(t *traffic.Target, _ int) (*session, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	return &session{close: t.Empty, play: func(n int, w *traffic.Stopwatch) error {
		if err := shake(t, n, w); err != nil {
			return err
		}
		return hangUp(t, n, w)
	}}, nil
}

// hangUp accepts and closes n connections, in a lap each.
func hangUp(t *traffic.Target, n int, w *traffic.Stopwatch) error {
	fds := make([]int, n)
	err := w.Lap(func() (err error) {
		for i := range fds {
			if fds[i], err = accept(t.Listener); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Lap(func() error {
		for _, fd := range fds {
			if err := closeRaw(fd); err != nil {
				return err
			}
		}
		return nil
	})
}

// synsDropped are SYNs to a full accept queue.
func synsDropped(t *traffic.Target, _ int) (*session, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	if err := t.Fill(); err != nil {
		return nil, err
	}
	return &session{close: t.Empty, play: func(n int, w *traffic.Stopwatch) error {
		return dropped(t, t.Syns(t.Take(n)), w)
	}}, nil
}

// dropped sends frames that all are dropped by the full accept queue.
func dropped(t *traffic.Target, frames [][]byte, w *traffic.Stopwatch) error {
	if err := t.Mark(); err != nil {
		return err
	}
	if err := writeAll(t, frames, w); err != nil {
		return err
	}
	return t.Expect(len(frames), event.CounterListenOverflows, event.CounterListenDrops)
}

// cookieACKsDropped are ACKs of SYN cookies that come when the accept queue has filled up.
func cookieACKsDropped(t *traffic.Target, total int) (_ *session, err error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		return nil, err
	}
	// A cookie holds for a minute at least (MAX_SYNCOOKIE_AGE).
	var frames [][]byte
	for len(frames) < min(total, traffic.Pool) {
		clients := t.Take(chunkOperations)
		answers, err := answered(t, clients, &traffic.Stopwatch{})
		if err != nil {
			return nil, err
		}
		for _, c := range clients {
			frames = append(frames, c.ACK(t.Port, answers[c]))
		}
	}
	if err := t.Fill(); err != nil {
		return nil, err
	}
	next := 0
	return &session{
		play: func(n int, w *traffic.Stopwatch) error {
			next %= len(frames) - n + 1
			mine := frames[next : next+n]
			next += n
			return dropped(t, mine, w)
		},
		close: func() error {
			return errors.Join(t.Empty(), t.World.Sysctl("net.ipv4.tcp_syncookies", "1"))
		},
	}, nil
}
