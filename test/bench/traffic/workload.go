// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// Workload is one kind of traffic to measure.
type Workload struct {
	Name  string // in results
	Title string // in the table
	Run   func(*Target, int) (Times, error)
}

var Workloads = []Workload{
	{"accepted_syn", "accepted SYNs", (*Target).acceptedSYNs},
	{"dropped_syn", "dropped SYNs", (*Target).DroppedSYNs},
	{"dropped_cookie_ack", "dropped cookie ACKs", (*Target).droppedCookieACKs},
}

// acceptedSYNs times SYNs that each make a request and are answered.
func (t *Target) acceptedSYNs(n int) (Times, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	clients := t.Take(n)
	if err := t.Mark(); err != nil {
		return nil, err
	}
	took, err := t.timed(t.Syns(clients))
	if err != nil {
		return took, err
	}
	found, err := t.Device.Answers()
	if err != nil {
		return took, err
	}
	for _, c := range clients { // a late answer to an earlier burst may be there too
		if _, ok := found[c]; !ok {
			return took, fmt.Errorf("the SYN of client %d was not answered", c)
		}
	}
	if err := t.Expect(0, event.CounterListenDrops, event.CounterListenOverflows,
		event.CounterSyncookiesSent, event.CounterTCPReqQFullDoCookies); err != nil {
		return took, err
	}
	// An RST ends each half-open handshake: left alone they would answer again
	// and again in the middle of what is measured next.
	frames := make([][]byte, n)
	for i, c := range clients {
		frames[i] = c.RST(t.Port)
	}
	if _, err := t.Device.write(frames); err != nil {
		return took, err
	}
	return took, t.Expect(n, event.CounterEmbryonicRsts)
}

// DroppedSYNs times SYNs to a full accept queue.
func (t *Target) DroppedSYNs(n int) (Times, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return nil, err
	}
	frames := t.Syns(t.Take(n))
	if err := t.Fill(); err != nil {
		return nil, err
	}
	return t.timedDrops(frames)
}

// droppedCookieACKs times ACKs of SYN cookies that come when the accept queue
// has filled up.
func (t *Target) droppedCookieACKs(n int) (Times, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		return nil, err
	}
	clients := t.Take(n)
	if err := t.Mark(); err != nil {
		return nil, err
	}
	if _, err := t.Device.write(t.Syns(clients)); err != nil {
		return nil, err
	}
	if err := t.Expect(n, event.CounterSyncookiesSent); err != nil {
		return nil, err
	}
	// A cookie holds for a minute at least (MAX_SYNCOOKIE_AGE), a burst is shorter.
	found, err := t.Device.Answers()
	if err != nil {
		return nil, err
	}
	frames := make([][]byte, n)
	for i, c := range clients {
		seq, ok := found[c]
		if !ok {
			return nil, fmt.Errorf("client %d was sent no cookie", c)
		}
		frames[i] = c.ACK(t.Port, seq)
	}
	if err := t.Fill(); err != nil {
		return nil, err
	}
	return t.timedDrops(frames)
}

// timedDrops times frames that all are dropped by the full accept queue.
func (t *Target) timedDrops(frames [][]byte) (Times, error) {
	if err := t.Mark(); err != nil {
		return nil, err
	}
	took, err := t.timed(frames)
	if err != nil {
		return took, err
	}
	if err := t.Expect(len(frames), event.CounterListenOverflows, event.CounterListenDrops); err != nil {
		return took, err
	}
	return took, t.Empty()
}

// Settle lets the machine come to rest before something is timed.
const Settle = 100 * time.Millisecond

// timed sends the frames that a workload is about.
func (t *Target) timed(frames [][]byte) (took Times, err error) {
	time.Sleep(Settle)
	if t.Around == nil {
		return t.Device.write(frames)
	}
	err = t.Around(func() (err error) {
		took, err = t.Device.write(frames)
		return err
	})
	return took, err
}
