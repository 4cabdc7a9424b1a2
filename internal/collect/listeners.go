// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"log/slog"

	"github.com/synspy/synspy/internal/collect/queues"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/session"
)

// listeners adds what is known of each listener.
func (c *collector) listeners(s *event.Summary) {
	seen := make(map[uint64]event.Seen, len(s.Seen))
	for _, row := range s.Seen {
		seen[row.Listener.Key] = row
	}
	settings := make(map[uint64]kernel.ListenSettings)
	c.queues.Divide()
	for _, r := range c.queues.Ranked() {
		if r.Skipped { // it was not followed
			r.Processes = c.session.Owners.Processes(r.Listener.Socket,
				kernel.Monotonic())
		}
		row := seen[r.Listener.Socket]
		l := c.listener(r, &row)
		l.Sysctls, l.Missing = sysctlsOf(r, settings, c.session.Log)
		l.HostNet = settings[r.Listener.NetNS].First
		c.threads.Describe(&l, r.Listener.Inode, r.Processes)
		if len(r.Processes) == 0 && !kernel.SeesAllProcesses() {
			l.Missing = append(l.Missing,
				evidence.Gap{Need: evidence.NeedOwners,
					By:  []string{session.HostProcesses},
					Why: "processes outside of this PID namespace are not to be seen"})
		}
		c.evidence.Listeners = append(c.evidence.Listeners, l)
	}
	c.evidence.GroupSyns, c.evidence.GroupFinished = c.queues.GroupSums(seen)
	addMembers(c.evidence.Listeners, c.queues.Rows)
	addReplaced(c.evidence.Listeners)
}

// listener is what was seen of one, and what was counted of it in all.
func (c *collector) listener(r *queues.Row, row *event.Seen) evidence.Listener {
	l := r.Evidence(c.queues.Step)
	l.Processes = c.threads.Named(r.Processes)
	if c.counts(r) {
		l.Syns = &row.Syn
	}
	if c.session.Listeners.Remembers(r.Listener.Socket) {
		l.Finished = c.finished(row)
	}
	if r.Undivided {
		queues.Undivide(&l)
	}
	l.Waits = waitsOf(row.Accepting)
	if row.Accepting != nil {
		l.LongestGapMs = row.Accepting.LongestGapMs
		l.SynAcksAgain, l.SynsAgain = row.Accepting.SynAcksAgain, row.Accepting.SynsAgain
	}
	l.AskedBacklog = c.session.Listeners.Asked(&r.Listener)
	return l
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

// sysctlsOf reads those of a listener's namespace, through a process in it where it is not synspy's
// own, and says what it takes where that was refused.
func sysctlsOf(r *queues.Row, known map[uint64]kernel.ListenSettings,
	log *slog.Logger) (evidence.Sysctls, []evidence.Gap) {
	netns := r.Listener.NetNS
	settings, ok := known[netns]
	paths := make([]string, 0, 1+len(r.Processes))
	if own, err := kernel.OwnNetNS(); err == nil && own == netns {
		paths = append(paths, "")
	}
	for _, p := range r.Processes {
		paths = append(paths, kernel.ProcessNetNS(p.PID))
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
			log.Debug("read sysctls", "path", path, "error", err)
		}
	}
	if ok {
		known[netns] = settings
	}
	return evidence.Sysctls{Syncookies: settings.Syncookies,
		MaxSynBacklog: settings.MaxSynBacklog, Somaxconn: settings.Somaxconn,
		AbortOnOverflow: settings.AbortOnOverflow, SynackRetries: settings.SynackRetries}, gaps
}
