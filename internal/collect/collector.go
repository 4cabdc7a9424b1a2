// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/collect/network"
	"github.com/synspy/synspy/internal/collect/queues"
	"github.com/synspy/synspy/internal/collect/threads"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// Bounds of the clients whose lost packets are counted, and of those that are listed.
const (
	maxClients    = 4096
	listedClients = 32
)

// collector gathers evidence from a trace, whose stream it is: Flush comes with every tick.
type collector struct {
	options  DiagnoseOptions
	session  *session.Session
	evidence evidence.Evidence

	queues   *queues.Watch
	threads  *threads.Watch // nil before the start
	deaths   network.Deaths // before any listener
	reasoned network.Deaths // at one, and for a reason that the kernel gave
	met      *network.Met
	clients  map[netip.Addr]*event.ClientCount
	flows    network.Flows
	diverted *network.Diverted // where rules send the SYNs of the ports asked about
	strays   *network.Strays   // nil before the start

	netfilter network.Netfilter
	forwards  *network.Forwards
	drops     uint64
	saidAt    time.Time // when people were last told how it goes
	foundAt   time.Time // when listeners were last looked for
}

// newCollector prepares to collect what a session sees.
func newCollector(s *session.Session, options DiagnoseOptions) *collector {
	return &collector{options: options, session: s, queues: queues.New(s, options.Duration),
		deaths: make(network.Deaths), reasoned: make(network.Deaths), met: network.NewMet(),
		clients: make(map[netip.Addr]*event.ClientCount), flows: make(network.Flows),
		diverted: &network.Diverted{}}
}

// begin takes the opening values. From when it returns everything is counted into the timelines.
func (c *collector) begin(ctx context.Context) error {
	only := c.options.Watch.Filter.NetNS
	c.queues.Start()
	c.find()
	c.strays = network.LoadStrays(c.session, only)
	places := network.NewPlaces(c.session.Log)
	c.netfilter = network.OpenNetfilter(places, c.concerned(places))
	c.forwards = network.OpenForwards(only)
	if _, err := c.queues.Poll(true); err != nil {
		return err
	}
	c.queues.Start()
	c.saidAt = c.queues.Clock.Start
	c.threads = threads.Open(threads.Options{Start: c.queues.Clock.Start,
		Window: c.options.Duration, BTF: c.options.Watch.BTF,
		Shortages: func() (threads.Shortages, error) {
			return c.session.Probe.OpenShortages()
		},
	}, c.session.Log)
	c.follow()
	if c.queues.HalfFull() { // trouble that was there before
		c.alarm()
	}
	c.threads.Begin(ctx)
	if len(c.queues.Rows) == 0 {
		cli.SayTo(c.options.Status, "no listener matches yet; waiting for one")
	}
	return nil
}

// findEvery is how often it is asked which listeners match, and who holds them.
const findEvery = time.Second

func (c *collector) find() {
	c.foundAt = time.Now()
	c.queues.Find()
}

// follow has the threads watched that hold the listeners in trouble, or, where none is, the first
// ones.
func (c *collector) follow() {
	ranked := c.queues.Tracked()
	holders := make([]threads.Holders, 0, threads.MaxListeners)
	for _, r := range ranked[:min(len(ranked), threads.MaxListeners)] {
		holders = append(holders,
			threads.Holders{Inode: r.Listener.Inode, Processes: r.Processes})
	}
	c.threads.Follow(holders)
}

// alarm has threads sampled closely for a while.
func (c *collector) alarm() {
	if c.threads != nil {
		c.threads.Alarm(c.follow)
	}
}

// poll reads the queues: all, or those whose turn it is.
func (c *collector) poll(all bool) error {
	trouble, err := c.queues.Poll(all)
	if err != nil {
		return err
	}
	if trouble {
		c.alarm()
	}
	if c.threads != nil {
		c.threads.Stand(c.queues.Standing())
	}
	return nil
}

// Ready is of no interest: the diagnosis says what could not be seen.
func (c *collector) Ready(event.Ready) error { return nil }

// Suppressed takes what the rate limit kept back: packets without their clients.
func (c *collector) Suppressed(h event.Suppressed) error {
	if h.Cause == event.CauseUnknown { // SYN cookies, or not known
		if h.Listener != nil && h.Stage == event.StageSyn {
			c.queues.Cookies(h.Listener.Key, h.Count)
		}
		return nil
	}
	if h.Action != event.ActionIgnored {
		c.drops += h.Count
	}
	if h.Listener == nil {
		if h.Stage == event.StageIngress {
			c.deaths.Add(network.DeathKey{Cause: h.Cause, Action: h.Action}, nil,
				h.Count)
		}
		return nil
	}
	if c.queues.Suppressed(h) {
		c.alarm()
	}
	return nil
}

// Drop is one packet, or a SYN that a cookie answered.
func (c *collector) Drop(d *event.Drop) error {
	if d.Type == "cookie" {
		c.queues.Cookie(d)
		return nil
	}
	if d.Action != event.ActionIgnored {
		c.drops++
		c.client(d)
		c.flows.Add(d)
		c.diverted.Given(d)
	}
	if d.Stage == event.StageIngress {
		c.deaths.Add(network.DeathOf(d), d.Connection, 1)
		c.met.Add(d.Connection)
		return nil
	}
	if d.Kernel.Reason != "" {
		c.reasoned.Add(network.DeathOf(d), nil, 1)
	}
	if c.queues.Drop(d) {
		c.alarm()
	}
	return nil
}

func (c *collector) client(d *event.Drop) {
	if d.Client == nil {
		return
	}
	count := c.clients[d.Client.Addr]
	if count == nil {
		if len(c.clients) >= maxClients {
			return
		}
		count = &event.ClientCount{Addr: d.Client.Addr.String()}
		c.clients[d.Client.Addr] = count
	}
	count.Drops++
}

// quietFor is how long nothing arrives before frames for other hosts are looked at.
const quietFor = time.Second

// Flush is a tick: the queues are read.
func (c *collector) Flush() error {
	if err := c.poll(false); err != nil {
		return err
	}
	c.queues.FollowDeferred(false)
	if time.Since(c.foundAt) >= findEvery {
		c.find()
		c.follow()
	}
	c.met.Tick(false)
	// A SYN-ACK that is dropped here is sent again, or fails to be, and so are the clients'
	// SYNs.
	if c.queues.Unanswered() ||
		c.queues.SYNs == 0 && time.Since(c.queues.Clock.Start) >= quietFor {
		c.strays.Watch()
	}
	c.progress()
	return nil
}

// Summary is the end: what was counted in all. Nothing is counted any more, but what was since the
// last tick is still to be read.
func (c *collector) Summary(s event.Summary) error {
	if err := c.poll(true); err != nil {
		return err
	}
	c.queues.FollowDeferred(true)
	c.conclude(s)
	return nil
}

// close frees what was loaded, and adds to the threads' samples where in their code they were.
func (c *collector) close() error {
	var err error
	if c.strays != nil {
		err = c.strays.Close()
	}
	if c.threads == nil {
		return err
	}
	lost := c.threads.Close(c.evidence.Listeners, c.evidence.Closely)
	if lost > 0 {
		var o event.Overflow
		if c.evidence.Overflow != nil {
			o = *c.evidence.Overflow
		}
		o.Samples = lost
		c.evidence.Overflow = &o
	}
	return err
}

// progressEvery is how often people are told how it goes.
const progressEvery = time.Second

func (c *collector) progress() {
	if c.options.Status == nil || time.Since(c.saidAt) < progressEvery {
		return
	}
	c.saidAt = time.Now()
	line := fmt.Sprintf("%s of %s: %s, %d dropped or reset",
		time.Since(c.queues.Clock.Start).Round(time.Second), c.options.Duration,
		render.Plural(int(c.queues.SYNs), "SYN"), c.drops)
	if r := c.queues.Fullest(); r != nil {
		line += fmt.Sprintf("; fullest accept queue: %d of %d on port %d", r.Queue.Len,
			r.Queue.Limit, r.Listener.Port)
	}
	cli.SayTo(c.options.Status, line)
}
