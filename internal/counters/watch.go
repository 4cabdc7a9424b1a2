// SPDX-License-Identifier: Apache-2.0

package counters

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// ReaderEvery is how often a watch checks that it still has a reader.
const ReaderEvery = 100 * time.Millisecond

// watching is what a watch remembers between intervals.
type watching struct {
	*counters
	table   *render.CountersWatch
	before  map[uint64]reading // by inode
	moved   map[movedKey]bool
	began   time.Time
	quietAt time.Time // when something moved last, or silence was explained
}

type movedKey struct {
	netns   uint64
	counter string
}

// watch writes what moves, interval by interval, until the context ends. What
// moved since the last whole interval is written too.
func (c *counters) watch(ctx context.Context, first []reading) error {
	w := &watching{counters: c, table: render.NewCountersWatch(c.to, c.render),
		before: byInode(first),
		moved:  make(map[movedKey]bool), began: time.Now(), quietAt: time.Now()}
	if c.options.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.options.Duration)
		defer cancel()
	}
	c.say(fmt.Sprintf("watching %s every %v", render.Plural(len(first), "network namespace"),
		c.options.Interval))
	gone := cli.ReaderGone(c.to)
	reader, interval := time.NewTicker(ReaderEvery), time.NewTicker(c.options.Interval)
	defer reader.Stop()
	defer interval.Stop()
	for n := uint64(0); c.options.Count == 0 || n < c.options.Count; {
		select {
		case <-reader.C:
			if gone() {
				return syscall.EPIPE
			}
			continue
		case <-interval.C:
			n++
		case <-ctx.Done():
		}
		alive, err := w.interval()
		if err != nil {
			return err
		}
		if !alive || ctx.Err() != nil {
			break
		}
	}
	w.end()
	return nil
}

// interval reads and writes once; false if there is nothing left to watch.
func (w *watching) interval() (alive bool, err error) {
	readings, err := w.reader.read()
	if err != nil {
		return false, err
	}
	if w.reader.only != 0 && len(readings) == 0 {
		w.say(fmt.Sprintf("network namespace %d is gone", w.reader.only))
		return false, nil
	}
	var (
		records []event.Counters
		of      []reading
	)
	for _, now := range readings {
		before, known := w.before[now.ns.Inode]
		if !known || session.WentBack(now.counters, before.counters) {
			continue // first seen: what it has counted so far is not of this interval
		}
		values := w.values(now, before)
		if len(values) == 0 {
			continue
		}
		for _, v := range values {
			if *v.Delta > 0 {
				w.moved[movedKey{now.ns.Inode, v.Name}] = true
				w.quietAt = now.at
			}
		}
		records = append(records,
			event.Counters{NetNS: now.ns.Inode, Time: event.Time{Time: now.at},
				Counters: values})
		of = append(of, now)
	}
	w.before = byInode(readings)
	w.reader.describe(records, of)
	if err := w.table.Interval(records); err != nil {
		return false, err
	}
	if now := time.Now(); now.Sub(w.quietAt) >= cli.QuietEvery {
		w.say("nothing moved in the last " + render.Seconds(now.Sub(w.quietAt)) + ": " +
			w.watched())
		w.quietAt = now
	}
	return true, nil
}

// end says what became of it: silence must be evidence.
func (w *watching) end() {
	what := "nothing"
	if n := len(w.moved); n > 0 {
		what = render.Plural(n, "counter")
	}
	w.say(fmt.Sprintf("%s moved in %s: %s", what, render.Seconds(time.Since(w.began)),
		w.watched()))
}

func (w *watching) watched() string {
	return render.Plural(len(w.before), "network namespace") + " watched"
}

func byInode(readings []reading) map[uint64]reading {
	m := make(map[uint64]reading, len(readings))
	for _, r := range readings {
		m[r.ns.Inode] = r
	}
	return m
}
