// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synspy/synspy/internal/lab/world"
)

// patience is for how long a client of a crowd tries, and how often: as Linux does
// from 6.5 on (tcp_syn_linear_timeouts).
const (
	patience   = 5
	retryAfter = time.Second
)

// crowd is clients that come, try again while nobody answers, and stay connected.
type crowd struct {
	w       *world.World
	server  netip.AddrPort
	trying  []*attempt
	deaf    bool // their answers are lost on the way
	asks    bool // they send a request as soon as they are connected
	checks  bool // they want no connection: an RST is their answer to the SYN-ACK, or, of deaf ones, somebody else's
	refused int
	local   func() netip.AddrPort // nil: addresses of the TUN device's own network
	through *world.Ethernet       // their SYNs come in through; nil: the TUN device
}

type attempt struct {
	client *world.Client
	tries  int
	next   time.Time
	reset  bool // the last SYN-ACK was
}

// come lets n more clients send their SYN.
func (c *crowd) come(n int) error {
	for range n {
		client := c.w.Client(c.server)
		if c.local != nil {
			client = c.w.ClientFrom(c.local(), c.server, client.ISN)
		}
		a := &attempt{client: client, tries: 1, next: time.Now().Add(retryAfter)}
		if err := c.syn(a.client); err != nil {
			return err
		}
		c.trying = append(c.trying, a)
	}
	return nil
}

func (c *crowd) syn(client *world.Client) error {
	if c.through != nil {
		return c.through.Send(client.Frame(client.SYNSegment()))
	}
	return client.SYN()
}

// go on with those that came: acknowledge, try again, or give up.
func (c *crowd) proceed() error {
	left := c.trying[:0]
	for _, a := range c.trying {
		switch {
		case a.client.WasReset():
			c.refused++
		case c.checks && !a.reset && a.client.Answered():
			if err := a.client.RST(); err != nil {
				return err
			}
			if a.reset = true; c.deaf { // and will try again
				left = append(left, a)
			}
		case !c.deaf && a.client.Answered():
			if err := a.client.ACK(); err != nil {
				return err
			}
			if !c.asks {
				continue
			}
			if err := a.client.Data([]byte("GET")); err != nil {
				return err
			}
		case time.Now().Before(a.next):
			left = append(left, a)
		case a.tries < patience:
			if err := c.syn(a.client); err != nil {
				return err
			}
			a.reset, a.client.SYNAck = false, nil
			a.tries++
			a.next = time.Now().Add(retryAfter)
			left = append(left, a)
		}
	}
	c.trying = left
	return nil
}

// tick is how often a crowd is looked after.
const tick = 10 * time.Millisecond

// steady lets burst clients come every so often until the context ends.
func steady(w *world.World, server netip.AddrPort, every time.Duration, burst int) traffic {
	c := &crowd{w: w, server: server}
	return c.steady(every, burst)
}

// together plays several kinds of clients at once.
func together(all ...traffic) traffic {
	return func(ctx context.Context) error {
		var group errgroup.Group
		for _, play := range all {
			group.Go(func() error { return play(ctx) })
		}
		return group.Wait()
	}
}

// repeatEvery does something once in a while until the context ends.
func repeatEvery(ctx context.Context, w *world.World, pause time.Duration, do func() error) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if err := do(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c *crowd) steady(every time.Duration, burst int) traffic {
	return func(ctx context.Context) error {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for due := time.Now(); ; {
			for !time.Now().Before(due) {
				if err := c.come(burst); err != nil {
					return err
				}
				due = due.Add(every)
			}
			if err := c.proceed(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	}
}
