// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// workload is one kind of traffic to measure.
type workload struct {
	name  string // in results
	title string // in the table
	run   func(*target, int) (times, error)
}

var workloads = []workload{
	{"accepted_syn", "accepted SYNs", (*target).acceptedSYNs},
	{"dropped_syn", "dropped SYNs", (*target).droppedSYNs},
	{"dropped_cookie_ack", "dropped cookie ACKs", (*target).droppedCookieACKs},
}

// acceptedSYNs times SYNs that each make a request and are answered.
func (t *target) acceptedSYNs(n int) (times, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	clients := t.take(n)
	if err := t.mark(); err != nil {
		return nil, err
	}
	took, err := t.timed(t.syns(clients))
	if err != nil {
		return took, err
	}
	found, err := t.device.answers()
	if err != nil {
		return took, err
	}
	for _, c := range clients { // a late answer to an earlier burst may be there too
		if _, ok := found[c]; !ok {
			return took, fmt.Errorf("the SYN of client %d was not answered", c)
		}
	}
	if err := t.expect(0, event.CounterListenDrops, event.CounterListenOverflows,
		event.CounterSyncookiesSent, event.CounterTCPReqQFullDoCookies); err != nil {
		return took, err
	}
	// An RST ends each half-open handshake: left alone they would answer again
	// and again in the middle of what is measured next.
	frames := make([][]byte, n)
	for i, c := range clients {
		frames[i] = c.rst(t.port)
	}
	if _, err := t.device.write(frames); err != nil {
		return took, err
	}
	return took, t.expect(n, event.CounterEmbryonicRsts)
}

// droppedSYNs times SYNs to a full accept queue.
func (t *target) droppedSYNs(n int) (times, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	frames := t.syns(t.take(n))
	if err := t.fill(); err != nil {
		return nil, err
	}
	return t.timedDrops(frames)
}

// droppedCookieACKs times ACKs of SYN cookies that come when the accept queue
// has filled up.
func (t *target) droppedCookieACKs(n int) (times, error) {
	if err := t.world.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		return nil, err
	}
	clients := t.take(n)
	if err := t.mark(); err != nil {
		return nil, err
	}
	if _, err := t.device.write(t.syns(clients)); err != nil {
		return nil, err
	}
	if err := t.expect(n, event.CounterSyncookiesSent); err != nil {
		return nil, err
	}
	// A cookie holds for a minute at least (MAX_SYNCOOKIE_AGE), a burst is shorter.
	found, err := t.device.answers()
	if err != nil {
		return nil, err
	}
	frames := make([][]byte, n)
	for i, c := range clients {
		seq, ok := found[c]
		if !ok {
			return nil, fmt.Errorf("client %d was sent no cookie", c)
		}
		frames[i] = c.ack(t.port, seq)
	}
	if err := t.fill(); err != nil {
		return nil, err
	}
	return t.timedDrops(frames)
}

// timedDrops times frames that all are dropped by the full accept queue.
func (t *target) timedDrops(frames [][]byte) (times, error) {
	if err := t.mark(); err != nil {
		return nil, err
	}
	took, err := t.timed(frames)
	if err != nil {
		return took, err
	}
	if err := t.expect(len(frames), event.CounterListenOverflows, event.CounterListenDrops); err != nil {
		return took, err
	}
	return took, t.empty()
}

// settle lets the machine come to rest before something is timed.
const settle = 100 * time.Millisecond

// timed sends the frames that a workload is about.
func (t *target) timed(frames [][]byte) (took times, err error) {
	time.Sleep(settle)
	if t.around == nil {
		return t.device.write(frames)
	}
	err = t.around(func() (err error) {
		took, err = t.device.write(frames)
		return err
	})
	return took, err
}
