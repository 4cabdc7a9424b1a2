// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/session"
)

// conclude makes evidence of what was collected.
func (c *collector) conclude(s event.Summary) {
	c.threads.end()
	c.shortages.end()
	e := &c.Evidence
	e.Files = c.shortages.files
	e.Start, e.WindowMs = event.Time{Time: c.start}, uint64(time.Since(c.start).Milliseconds())
	e.Closely = c.attention.told(uint32(e.WindowMs))
	e.Filter = event.FilterText(c.options.Filters)
	e.OneNetNS = event.Filtered(c.options.Filters, "netns")
	for _, r := range c.options.Watch.Filter.Ports {
		for port := int(r.Low); port <= int(r.High) && len(e.Ports) < maxPolled; port++ {
			e.Ports = append(e.Ports, uint16(port))
		}
	}
	e.Counts, e.Ledger, e.Balanced = s.Counts, s.Ledger, &s.Balanced
	c.overflowed(&s)
	for _, count := range c.clients {
		e.Clients = append(e.Clients, *count)
	}
	slices.SortFunc(e.Clients, func(a, b event.ClientCount) int {
		return cmp.Or(cmp.Compare(b.Drops, a.Drops), cmp.Compare(a.Addr, b.Addr))
	})
	if len(c.clients) < maxDroppers {
		seen := uint64(len(c.clients))
		e.ClientsSeen = &seen
	}
	e.Clients = e.Clients[:min(len(e.Clients), toldClients)]
	c.met.tick(true)
	e.Tells = slices.DeleteFunc(event.TellingReasons(),
		func(name string) bool { return !c.session.Probe.NamesReason(name) })
	places := c.newDeathPlaces()
	e.Ingress, e.Reasoned = c.deaths.tell(places), c.reasoned.tell(places)
	e.Elsewhere = c.elsewhere(places)
	c.diversions()
	c.listenersOf(s)
	c.gaps()
	c.devices()
	c.forwarded()
	c.strayed(places)
	c.closeNetfilter(places)
	e.Silence = silence(c.options.Watch, len(c.Rows))
	e.Narrowed = len(c.options.Watch.Filter.Servers) > 0
}

// silence says why no drop may mean nothing: what a filter keeps out may well have dropped, and
// SYNs are counted by listener.
func silence(watch session.Watch, listeners int) string {
	switch f := &watch.Filter; {
	case watch.Owner != owner.Filter{} && listeners == 0:
		return "no listener matched the filter"
	case len(f.Clients) > 0:
		return diagnose.SilentClient
	case len(f.Causes) > 0 || len(f.Stages) > 0:
		return diagnose.SilentCause
	}
	return ""
}

// listenersOf adds what is known of each listener.
func (c *collector) listenersOf(s event.Summary) {
	seen := make(map[uint64]event.Seen, len(s.Seen))
	for _, row := range s.Seen {
		seen[row.Listener.Key] = row
	}
	settings := make(map[uint64]kernel.ListenSettings)
	all := c.session.Listeners.List()
	c.mix(all, c.session.Probe.Undivided(all, c.session.Listeners.Lived))
	for _, r := range c.ranked() {
		if r.skipped { // it was not followed
			r.processes = c.session.Owners.Processes(r.Listener.Socket,
				kernel.Monotonic())
		}
		l := evidence.Listener{ID: *session.Described(&r.Listener, true),
			Processes: c.tell(r.processes), Counts: r.counts,
			StepMs: uint32(c.step.Milliseconds()), Timeline: slices.Clone(r.points), PeakAccepts: r.peak,
			RetriesTold: r.told && !r.forgot, ClosedMs: r.closed}
		row := seen[r.Listener.Socket]
		if c.counts(r) {
			l.Syns = &row.Syn
		}
		if r.began && !r.gaps {
			var accepts uint64
			for _, p := range r.points {
				accepts += valueOf(p.Accepts)
			}
			l.Accepts = &accepts
		}
		if c.session.Listeners.Remembers(r.Listener.Socket) {
			l.Finished = c.finished(&row)
		}
		l.Late, l.HalfOpenBefore, l.BadAcks, l.Deferred = r.late, r.halfOpen, r.badAcks, r.deferral.end()
		if r.undivided {
			undivide(&l)
		}
		l.Cookies, l.Unsent = &r.cookies, &r.unsent
		l.Waits = waitsOf(row.Accepting)
		if row.Accepting != nil {
			l.LongestGapMs = row.Accepting.LongestGapMs
			l.SynAcksAgain, l.SynsAgain = row.Accepting.SynAcksAgain, row.Accepting.SynsAgain
		}
		l.AskedBacklog = c.session.Listeners.Asked(&r.Listener)
		l.Sysctls, l.Missing = c.sysctls(r, settings)
		l.HostNet = settings[r.Listener.NetNS].First
		var frozen []frozenCgroup
		l.Threads, l.Cgroups, frozen = c.threads.of(r.Listener.Inode, r.processes)
		for _, by := range frozen {
			l.Frozen, l.FrozenBy = append(l.Frozen, by.path), append(l.FrozenBy,
				by.file)
		}
		l.AcceptFailures, l.Descriptors = c.shortages.of(r.Listener.Inode, r.processes)
		l.Missing = append(l.Missing, c.threads.refused.Of(r.processes)...)
		if len(r.processes) == 0 && !kernel.SeesAllProcesses() {
			l.Missing = append(l.Missing,
				evidence.Gap{Need: evidence.NeedOwners,
					By:  []string{session.HostProcesses},
					Why: "processes outside of this PID namespace are not to be seen"})
		}
		c.Evidence.Listeners = append(c.Evidence.Listeners, l)
	}
	c.Evidence.GroupSyns, c.Evidence.GroupFinished = c.groupSums(seen)
	c.Members()
	c.replaced()
}

// finished is how many handshakes came to their end: those that entered the accept queue, or, where
// that is not hooked, the final ACKs that came.
func (c *collector) finished(row *event.Seen) *uint64 {
	switch {
	case row.Accepting != nil:
		n := row.Accepting.Arrivals
		return &n
	case c.session.Probe.SeesEntries():
		return new(uint64) // a listener without a row took none in
	}
	n := row.Ack
	return &n
}

func waitsOf(a *event.Accepting) (buckets []event.Bucket) {
	if a == nil {
		return nil
	}
	for _, w := range a.Waits {
		b := event.Bucket{Count: w.Count}
		if w.BelowUs > 0 {
			ms := float64(w.BelowUs) / 1000
			b.ToMs = &ms
		}
		buckets = append(buckets, b)
	}
	return buckets
}

// sysctls reads those of a listener's namespace, through a process in it where it is not synspy's
// own, and says what it takes where that was refused.
func (c *collector) sysctls(r *EvidenceRow,
	known map[uint64]kernel.ListenSettings) (evidence.Sysctls, []evidence.Gap) {
	netns := r.Listener.NetNS
	settings, ok := known[netns]
	paths := make([]string, 0, 1+len(r.processes))
	if own, err := kernel.Inode("/proc/thread-self/ns/net"); err == nil && own == netns {
		paths = append(paths, "")
	}
	for _, p := range r.processes {
		paths = append(paths, processNetNS(p.PID))
	}
	var gaps []evidence.Gap
	for _, path := range paths {
		if ok {
			break
		}
		var err error
		settings, err = kernel.ListenSettingsOf(path, netns)
		if ok = err == nil; ok {
			gaps = nil
		} else if by := session.EnteringTakes(err); len(by) > 0 && gaps == nil {
			gaps = []evidence.Gap{{Need: evidence.NeedSysctls, By: by,
				Why: "the settings of another network namespace are refused here"}}
		}
		if err != nil {
			c.session.Log.Debug("read sysctls", "path", path, "error", err)
		}
	}
	if ok {
		known[netns] = settings
	}
	return evidence.Sysctls{Syncookies: settings.Syncookies,
		MaxSynBacklog: settings.MaxSynBacklog, Somaxconn: settings.Somaxconn,
		AbortOnOverflow: settings.AbortOnOverflow, SynackRetries: settings.SynackRetries}, gaps
}

// Members lists with each listener the sockets that share its port by SO_REUSEPORT: those at its
// place that the kernel has in a group at all. Fewer than the group has are not all of it, more are
// more than one.
func (c *collector) Members() {
	groups := make(map[session.Place][]int)
	all := c.Evidence.Listeners
	for i := range all {
		r := c.Rows[all[i].ID.Key]
		if all[i].ClosedMs == nil && r != nil && r.Listener.Reuseport.Members > 1 {
			at := session.PlaceOf(&r.Listener)
			groups[at] = append(groups[at], i)
		}
	}
	for _, group := range groups {
		if slices.ContainsFunc(group,
			func(i int) bool { return int(c.Rows[all[i].ID.Key].Listener.Reuseport.Members) != len(group) }) {
			continue
		}
		var members []evidence.Member
		of := event.Reuseport{Members: uint32(len(group))}
		for _, i := range group {
			members = append(members, memberOf(&all[i]))
			if q := all[i].ID.AcceptQueue; q != nil && q.Len > q.Limit {
				of.Full++
			}
		}
		for _, i := range group {
			all[i].Members, all[i].ID.Reuseport = members, &of
		}
	}
}

func memberOf(l *evidence.Listener) evidence.Member {
	m := evidence.Member{Listener: l.ID, Processes: l.Processes, Accepts: l.Accepts}
	var dropped, full uint64
	var busiest uint32
	for _, count := range l.Counts {
		if count.Cause == event.CauseAcceptQueueFull {
			dropped += count.Count
		}
	}
	for _, p := range l.Timeline {
		if q := p.AcceptQueue; q != nil {
			busiest = max(busiest, q.Len)
			if q.Len > q.Limit {
				full += uint64(l.StepMs)
			}
		}
	}
	m.Dropped, m.FullMs, m.BusiestLen = &dropped, &full, &busiest
	return m
}

// replaced finds the sockets that took the place of those that closed.
func (c *collector) replaced() {
	all := c.Evidence.Listeners
	for i := range all {
		if all[i].ClosedMs == nil {
			continue
		}
		at := slices.IndexFunc(all, func(l evidence.Listener) bool {
			return l.ClosedMs == nil && l.ID.Port == all[i].ID.Port &&
				l.ID.NetNS == all[i].ID.NetNS && l.ID.Addr == all[i].ID.Addr
		})
		if at >= 0 {
			id := all[at].ID
			all[i].ReplacedBy = &id
		}
	}
}

// gaps lists what could not be had.
func (c *collector) gaps() {
	missing := func(need evidence.Need, why string, by ...string) {
		by = slices.DeleteFunc(by, func(s string) bool { return s == "" })
		c.Evidence.Missing = append(c.Evidence.Missing,
			evidence.Gap{Need: need, Why: why, By: by})
	}
	for _, r := range c.Rows {
		if r.undivided {
			missing(evidence.NeedDivision,
				"this backend does not see which socket of a SO_REUSEPORT group a SYN or a connection came to")
			break
		}
	}
	if err := c.shortages.refused; err != nil {
		missing(evidence.NeedFailures,
			"this kernel does not tell what accept() returned: "+err.Error())
	}
	if c.stacks == nil {
		missing(evidence.NeedOnCPU, "this kernel lets no program sample threads",
			kernel.Exhausted(c.noStack))
	} else if err := c.stacks.sampler.Support().OnCPU.Err; err != nil {
		missing(evidence.NeedOnCPU,
			"this kernel refuses samples of threads that run: "+err.Error())
	}
	hidden := sync.OnceValue(kernel.SymbolsTake) // it reads them all
	for _, hook := range c.session.Ready().Hooks {
		if hook.Name == probe.AnswerAgain && !hook.Attached {
			missing(evidence.NeedSynAcks, hook.Note)
		}
		for _, blind := range hook.Blind {
			if blind.Unseen() && blind.Stage == event.StageIngress {
				missing(evidence.NeedIngress,
					fmt.Sprintf("%s is not seen: %s", blind.Cause,
						blind.Why), hidden()...)
			}
		}
	}
}

// end lets go of what watched threads, and adds to their samples where they were.
func (c *collector) end() {
	c.threads.end()
	c.shortages.end()
	if err := c.endStrays(); err != nil {
		c.session.Log.Debug("close the watch over strays", "error", err)
	}
	if c.stacks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), namingTime)
	defer cancel()
	c.lostSamples()
	stacks, err := c.stacks.read(ctx)
	if err != nil {
		c.session.Log.Debug("read stacks", "error", err)
	}
	watched := func(*evidence.Sample) bool { return true }
	if c.stacks.sampler.Support().Late() {
		watched = func(s *evidence.Sample) bool {
			return evidence.Within(c.Evidence.Closely,
				s.OffsetMs)
		}
	}
	for i := range c.Evidence.Listeners {
		for j := range c.Evidence.Listeners[i].Threads {
			addStacks(&c.Evidence.Listeners[i].Threads[j], stacks, watched)
		}
	}
	if err := c.stacks.close(); err != nil {
		c.session.Log.Debug("close stacks", "error", err)
	}
}

// namingTime bounds the naming of functions.
const namingTime = 5 * time.Second

// addStacks gives the samples of a thread the stacks of user space that go with them:
// while it slept, the one that it slept in at the same place of the kernel; while it ran,
// those that it was seen in, each as often as it was.
func addStacks(t *evidence.Thread, stacks []event.Stack, watched func(*evidence.Sample) bool) {
	asleep := make(map[string][]string)
	longest := make(map[string]time.Duration)
	var running []event.Stack
	var runs uint64
	for i := range stacks {
		s := &stacks[i]
		if s.PID != t.PID || s.TID != t.TID {
			continue
		}
		inKernel, inUser := split(s.Frames)
		if len(inUser) == 0 {
			continue
		}
		if s.State.OnCPU() {
			running = append(running, *s)
			runs += s.Samples
			continue
		}
		for _, key := range placesOf(inKernel) {
			if d := s.Duration(); d > longest[key] {
				asleep[key], longest[key] = inUser, d
			}
		}
	}
	slices.SortStableFunc(running,
		func(a, b event.Stack) int { return cmp.Compare(b.Samples, a.Samples) })
	ran, told := uint64(0), uint64(0)
	for i := range t.Samples {
		if t.Samples[i].State == "R" && watched(&t.Samples[i]) {
			ran++
		}
	}
	for i := range t.Samples {
		smp := &t.Samples[i]
		switch {
		case smp.State == "R" && runs > 0 && watched(smp):
			_, smp.User = split(nthSample(running, (2*told+1)*runs/(2*ran)).Frames)
			smp.OnCPU = true
			told++
		case smp.State == "S" || smp.State == "D":
			for _, key := range placesOf(smp.Kernel) {
				if user := asleep[key]; user != nil {
					smp.User = user
					break
				}
			}
		}
	}
}

// nthSample finds the stack that has the nth of all their samples.
func nthSample(stacks []event.Stack, n uint64) *event.Stack {
	for i := range stacks {
		if n < stacks[i].Samples {
			return &stacks[i]
		}
		n -= stacks[i].Samples
	}
	return &stacks[len(stacks)-1]
}

// placesOf lists the functions of a kernel stack that tell where a thread sleeps: not the
// scheduler's, which all have in common.
func placesOf(stack []string) (places []string) {
	for _, frame := range stack {
		name, _, _ := strings.Cut(frame, "+")
		if strings.Contains(name, "schedule") || strings.HasPrefix(name, "__switch") ||
			name == "" {
			continue
		}
		places = append(places, name)
		if len(places) == 3 {
			break
		}
	}
	return places
}

func split(frames []event.Frame) (inKernel, inUser []string) {
	for _, f := range frames {
		if f.Kernel {
			inKernel = append(inKernel, f.String())
		} else {
			inUser = append(inUser, f.String())
		}
	}
	return inKernel, inUser
}
