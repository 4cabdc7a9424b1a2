// SPDX-License-Identifier: Apache-2.0

// Package collect gathers the evidence of a diagnosis while a trace runs: queues, threads, devices,
// firewalls, other namespaces.
package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/trace"
)

// Bounds of what is collected.
const (
	maxPolled   = 64   // listeners whose queues are read at every tick
	maxDeaths   = 256  // kinds of deaths before a listener
	maxDroppers = 4096 // client addresses that lost packets
	toldClients = 32
)

// collector gathers evidence from a trace, whose stream it is: Flush comes with every
// tick.
type collector struct {
	options  DiagnoseOptions
	session  *session.Session
	start    time.Time
	mono     uint64        // the same by CLOCK_MONOTONIC, ns
	step     time.Duration // what a point of the timelines covers
	Evidence evidence.Evidence

	Rows map[uint64]*EvidenceRow // by listener
	followed
	deaths   deathTable // before any listener
	reasoned deathTable // at one, and for a reason that the kernel gave
	met      *metWatch
	programs programs
	clients  map[netip.Addr]*event.ClientCount
	flows    flows
	// diverted is where rules send the SYNs of the ports asked about.
	diverted  *diverted
	drops     uint64
	syns      uint64
	toldAt    time.Time
	foundAt   time.Time
	changed   uint64      // what the listeners' changes were then
	stacks    *stackWatch // nil where threads' stacks cannot be had
	noStack   error       // why
	attention *attention  // nil before the start
	threads   *threadWatch
	shortages *shortageWatch
	strays    strayWatch
	netfilter netfilterWatch
	forwards  *forwardWatch
}

// EvidenceRow is a listener under watch.
type EvidenceRow struct {
	Listener  probe.Listener
	processes []event.Process
	counts    []event.Count
	queue     event.Queue
	cookies   uint64
	unsent    uint64 // handshakes given up since their SYN-ACK could not be sent again
	badAcks   evidence.BadAcks
	deferral  deferral
	halfOpen  *uint64 // when the window began
	late      *uint64 // connections that entered, of those that had a SYN dropped before
	points    []event.TimelinePoint
	closed    *uint64        // when it was seen to be closed, ms since the start
	arrived   probe.Arrivals // at the last tick
	stirred   bool           // something came to it, or waited there
	droppedAt time.Time      // when it last dropped
	lookedAt  time.Time      // when its queues were last read
	seen      probe.Arrivals // then
	entered   probe.Entered  // likewise

	// What the timeline has of it, from the last reading on.
	began   bool   // it was read
	readAt  uint32 // when, ms since the start; before the first reading: when it opened
	born    bool   // it opened after the start: all that it counted is of the window
	syns    uint64 // that have a place in the timeline
	again   uint64
	accepts uint64
	backlog uint32 // in its queue when it was first read
	peak    uint64 // the most accepts between two readings, for the length of a step
	told    bool   // connections that entered after a dropped SYN are told
	forgot  bool   // of some dropped SYN it was not known whether it came again
	skipped bool   // there were fuller ones to be read at the last tick
	gaps    bool   // at any
	stands  uint32 // for how long connections have been waiting and none was accepted, ms

	undivided bool // at some time it was not known which of its group a SYN or a connection came to
	foreign   bool // and some of the group are not under watch
}

// NewCollector prepares to collect what a session sees.
func NewCollector(s *session.Session, options DiagnoseOptions) *collector {
	c := &collector{options: options, session: s, Rows: make(map[uint64]*EvidenceRow),
		followed: followed{sums: make(map[uint64]probe.Arrivals)}, deaths: make(deathTable), reasoned: make(deathTable), met: newMetWatch(), programs: make(programs),
		clients: make(map[netip.Addr]*event.ClientCount), flows: make(flows), diverted: &diverted{}}
	for c.step = 2 * session.PollInterval; c.step*event.MaxTimelinePoints <= options.Duration; {
		c.step += session.PollInterval
	}
	return c
}

func (c *collector) begin(ctx context.Context) error {
	c.setOut()
	c.find()
	c.loadStrays()
	c.openNetfilter()
	c.forwards = openForwarded(c.options.Watch.Filter.NetNS)
	err := c.poll(true)
	if err != nil {
		return err
	}
	c.setOut() // from here on everything is counted into the timelines
	if c.stacks, err = openStacks(c.options.Watch.BTF, c.session.Log); err != nil {
		c.session.Log.Debug("stacks of threads cannot be had", "error", err)
		c.stacks, c.noStack = nil, err
	}
	c.attention = newAttention(c.start)
	c.threads = newThreadWatch(c.attention, c.stacks, c.options.Duration, c.session.Log)
	c.look()
	c.alarmFull() // trouble that was there before is looked at from the start
	c.threads.begin(ctx)
	c.shortages = newShortageWatch(c.threads.sampler,
		func() (shortages, error) { return c.session.Probe.OpenShortages() }, c.session.Log)
	c.shortages.begin(ctx)
	if len(c.Rows) == 0 {
		cli.SayTo(c.options.Status, "no listener matches yet; waiting for one")
	}
	return nil
}

// setOut makes now the start. Readings that were taken before are the first of the window.
func (c *collector) setOut() {
	c.start, c.mono, c.toldAt = time.Now(), kernel.Monotonic(), time.Now()
	for _, r := range c.Rows {
		r.setOut()
	}
}

func (c *collector) offset() uint32 { return uint32(time.Since(c.start).Milliseconds()) }

// since is the offset of a later CLOCK_MONOTONIC time, in ms.
func (c *collector) since(mono uint64) uint32 {
	return uint32((mono - c.mono) / uint64(time.Millisecond))
}

// findEvery is how often it is asked which listeners match, and who holds them.
const findEvery = time.Second

// find adds the listeners that match, if there are others than before, and asks who holds those
// that are followed.
func (c *collector) find() {
	c.foundAt = time.Now()
	if now := c.session.Listeners.Changed(); now != c.changed {
		c.changed = now
		c.match()
		return
	}
	for _, r := range c.tracked {
		r.processes = c.session.Owners.Processes(r.Listener.Socket, kernel.Monotonic())
	}
}

func (c *collector) match() {
	all := c.session.Listeners.List()
	for i := range all {
		if c.session.Listeners.Matches(&all[i]) {
			c.row(all[i].Socket, &all[i])
		}
	}
	if len(c.Rows) > maxPolled {
		ranked := c.ranked()
		c.first = ranked[:maxPolled]
	}
	c.mix(all, c.session.Probe.Undivided(all, c.session.Listeners.Lived))
}

// row is a listener's, made if it is new; nil where there are too many.
func (c *collector) row(socket uint64, l *probe.Listener) *EvidenceRow {
	r := c.Rows[socket]
	if r == nil {
		if len(c.Rows) >= session.MaxKnown {
			return nil
		}
		r = &EvidenceRow{Listener: *l}
		if at := c.session.Listeners.OpenedAt(socket); at > c.mono {
			r.born, r.readAt = true, c.since(at)
		}
		c.Rows[socket] = r
		if c.retrack = true; r.born || l.Accept.Len+l.Syn.Len > 0 {
			c.stir(r)
		}
	}
	r.processes = c.session.Owners.Processes(socket, kernel.Monotonic())
	return r
}

// look sees to it that the threads are watched that hold the listeners in trouble, or,
// where none is, of the first ones.
func (c *collector) look() {
	ranked := slices.SortedFunc(slices.Values(c.tracked), inTrouble)
	var targets []threadTarget
	for _, r := range ranked[:min(len(ranked), watchedListeners)] {
		c.learn(r.processes[:min(len(r.processes), watchedProcesses)])
		for _, p := range r.processes[:min(len(r.processes), watchedProcesses)] {
			targets = append(targets, threadTarget{p.PID, p.Start, r.Listener.Inode})
		}
	}
	c.threads.watch(targets)
}

// alarmed tells of a listener's drop: what its threads did explains those of its accept queue
// alone.
func (c *collector) alarmed(r *EvidenceRow, count *event.Count) {
	if c.stir(r); count.Action == event.ActionIgnored {
		return
	}
	r.droppedAt = time.Now()
	if count.Cause == event.CauseAcceptQueueFull {
		c.alarm()
	}
}

// alarmFull is for queues that are full, or nearly, by the last reading.
func (c *collector) alarmFull() {
	for _, r := range c.tracked {
		if r.halfFull() {
			c.alarm()
		}
	}
}

// alarm has threads looked at closely for a while.
func (c *collector) alarm() {
	if c.attention != nil && c.attention.alarm(time.Now()) {
		c.track()
		c.look() // who is in trouble now comes first
		c.attention.rouse()
	}
}

// ranked lists the listeners, those that dropped most first, then the fullest.
func (c *collector) ranked() []*EvidenceRow {
	return slices.SortedFunc(maps.Values(c.Rows), inTrouble)
}

func (c *collector) fullest() (most *EvidenceRow) {
	for _, r := range c.stirring {
		if r.queue.Len > 0 && (most == nil || r.queue.Len > most.queue.Len) {
			most = r
		}
	}
	return most
}

func dropsOf(counts []event.Count) (n uint64) {
	for _, count := range counts {
		if count.Action != event.ActionIgnored {
			n += count.Count
		}
	}
	return n
}

// Ready is of no interest: the diagnosis says what could not be seen.
func (c *collector) Ready(event.Ready) error { return nil }

// Held is what the rate limit kept back: packets without their clients.
func (c *collector) Held(h event.Held) error {
	count := event.Count{Cause: h.Cause, Stage: h.Stage, Action: h.Action, Count: h.Count}
	if h.Cause == event.CauseUnknown { // SYN cookies, or not known
		if h.Listener != nil && h.Stage == event.StageSyn {
			if r := c.Rows[h.Listener.Key]; r != nil {
				r.cookies += h.Count
			}
		}
		return nil
	}
	if h.Action != event.ActionIgnored {
		c.drops += h.Count
	}
	if h.Listener == nil {
		if h.Stage == event.StageIngress {
			c.deaths.add(deathKey{cause: h.Cause, action: h.Action}, nil, h.Count)
		}
		return nil
	}
	if r := c.Rows[h.Listener.Key]; r != nil {
		r.counts = event.AddCount(r.counts, count)
		c.alarmed(r, &count)
		r.badAcks.Add(count, h.Kernel.Counters)
		r.deferral.unseen = r.deferral.unseen || h.Cause == event.CauseDeferAccept
		r.held(c, count, h.Again)
	}
	return nil
}

// Drop is one packet, or a SYN that a cookie answered.
func (c *collector) Drop(d *event.Drop) error {
	if d.Type == "cookie" {
		if r := c.rowOf(d); r != nil {
			r.cookies++
		}
		return nil
	}
	count := event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action, Count: 1}
	if d.Action != event.ActionIgnored {
		c.drops++
		c.client(d)
		c.flows.add(d)
		c.diverted.given(d)
	}
	if d.Stage == event.StageIngress {
		c.deaths.add(deathOf(d), d.Connection, 1)
		c.met.add(d.Connection)
		return nil
	}
	if d.Kernel.Reason != "" {
		c.reasoned.add(deathOf(d), nil, 1)
	}
	if r := c.rowOf(d); r != nil {
		r.counts = event.AddCount(r.counts, count)
		c.alarmed(r, &count)
		r.badAcks.Record(d)
		if d.Unsent {
			r.unsent++
		}
		if d.Cause == event.CauseDeferAccept {
			r.deferral.ignored(d.Client, c.since(max(d.Mono, c.mono)))
		}
		r.drop(c, d)
	}
	return nil
}

func (c *collector) rowOf(d *event.Drop) *EvidenceRow {
	if d.Listener == nil {
		return nil
	}
	if r := c.Rows[d.Listener.Key]; r != nil {
		if len(d.Processes) > 0 {
			r.processes = d.Processes
		}
		return r
	}
	l, ok := c.session.Listeners.Find(d.Listener.Key)
	if !ok {
		return nil
	}
	return c.row(d.Listener.Key, &l)
}

func (c *collector) client(d *event.Drop) {
	if d.Client == nil {
		return
	}
	count := c.clients[d.Client.Addr]
	if count == nil {
		if len(c.clients) >= maxDroppers {
			return
		}
		count = &event.ClientCount{Addr: d.Client.Addr.String()}
		c.clients[d.Client.Addr] = count
	}
	count.Drops++
}

// Flush is a tick: the queues are read.
func (c *collector) Flush() error {
	if err := c.poll(false); err != nil {
		return err
	}
	c.followDeferred(false)
	if time.Since(c.foundAt) >= findEvery {
		c.find()
		c.look()
	}
	c.met.tick(false)
	c.watchStrays()
	c.progress()
	return nil
}

// Summary is the end: what was counted in all. Nothing is counted any more, but what was
// since the last tick is still to be read.
func (c *collector) Summary(s event.Summary) error {
	if err := c.poll(true); err != nil {
		return err
	}
	c.followDeferred(true)
	c.conclude(s)
	return nil
}

// DiagnoseOptions are those of synspy diagnose beyond what to watch.
type DiagnoseOptions struct {
	Watch    session.Watch
	Filters  []event.Filter // the watch's, as they were given
	Duration time.Duration
	Status   io.Writer // for people: standard error; nil for nobody
	Begun    func()    // is called once everything is watched; may be nil
}

// progressEvery is how often people are told how it goes.
const progressEvery = time.Second

// progress tells how it goes.
func (c *collector) progress() {
	if c.options.Status == nil || time.Since(c.toldAt) < progressEvery {
		return
	}
	c.toldAt = time.Now()
	line := fmt.Sprintf("%s of %s: %s", time.Since(c.start).Round(time.Second),
		c.options.Duration,
		render.Plural(int(c.syns), "SYN"))
	line += fmt.Sprintf(", %d dropped or reset", c.drops)
	if r := c.fullest(); r != nil {
		line += fmt.Sprintf("; fullest accept queue: %d of %d on port %d", r.queue.Len,
			r.queue.Limit, r.Listener.Port)
	}
	cli.SayTo(c.options.Status, line)
}

// DiagnoseRate is how many records a second and listener are looked at one by one unless asked
// otherwise; the counts know of all.
const DiagnoseRate = 1000

// Diagnose watches for the duration, or until the context ends, and judges what it saw.
// Errors are those of [Trace].
func Diagnose(ctx context.Context, options DiagnoseOptions, log *slog.Logger) (event.Diagnosis,
	error) {
	watch := options.Watch
	watch.Cookies, watch.Accepts = true, true
	if err := cli.EnoughFiles(cli.FilesToLoad + cli.FilesToSample + runtime.NumCPU()); err != nil {
		return event.Diagnosis{}, err
	}
	diverted := findDiversions(&watch.Filter)
	watch.Filter.Mapped = diverted.mapped()
	s, err := session.OpenUntil(ctx, watch, log)
	if err != nil {
		return event.Diagnosis{}, err
	}
	s.Listeners.Keep = session.MaxKnown // a window's evidence names them all
	c := NewCollector(s, options)
	c.diverted = diverted
	ctx, cancel := context.WithTimeout(ctx, options.Duration)
	defer cancel()
	if err := c.begin(ctx); err != nil {
		return event.Diagnosis{}, errors.Join(err, s.Close())
	}
	if options.Begun != nil {
		options.Begun()
	}
	err = trace.New(s, c, trace.Options{Watch: watch, Tick: session.PollInterval}).Run(ctx)
	c.end()
	if err = errors.Join(err, s.Close()); err != nil {
		return event.Diagnosis{}, err
	}
	d := diagnose.Diagnose(&c.Evidence)
	d.Origin, d.Kernel = s.Origin, kernel.Release()
	return d, nil
}
