// SPDX-License-Identifier: Apache-2.0

// Package trace makes a record of each message of the probe, and hands it to a stream.
package trace

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/recording"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// Options are those of synspy trace beyond what to watch.
type Options struct {
	Watch    session.Watch
	Duration time.Duration        // 0: until told to stop
	Count    uint64               // drop records, 0: no limit
	Filters  []event.Filter       // the watch's, as they were given
	Status   io.Writer            // for people: standard error
	Record   *recording.Recording // keeps the records, nil for none
	Keeps    bool                 // the stream keeps records, or parts of them: each gets memory of its own
	Tick     time.Duration        // between two flushes where no records come; 0: idleTick
}

// idleTick is how often a trace checks whether its reader went away, and whether a container has a
// name.
const idleTick = time.Second

// suppressedFor is for how long after the last message records may have been suppressed that are
// not written yet. In a second in which the kernel side suppresses any, it delivers one first, or
// loses it since the ring buffer is full: then others come.
const suppressedFor = 5 * time.Second

// Run writes a record for every handshake packet that dies until the context
// ends, and then the summary.
func Run(ctx context.Context, stream render.Stream, options Options, log *slog.Logger) error {
	options.Watch.Accepts = true
	s, err := session.OpenUntil(ctx, options.Watch, log)
	if err != nil {
		return errors.Join(err, options.Record.Close())
	}
	if options.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, options.Duration)
		defer cancel()
	}
	ctx, stream = options.Record.Alongside(ctx, stream)
	t := New(s, stream, options)
	t.kept = options.Keeps
	err = t.Run(ctx)
	return errors.Join(err, options.Record.Close(), s.Close())
}

// Trace is a running trace.
type Trace struct {
	*session.Session
	stream       render.Stream
	options      Options
	delivered    uint64 // records written
	drops        uint64 // of them, those that count for --count
	unwanted     uint64 // records that an owner filter kept back here
	seen         map[suppressedKey]listener.Count
	written      listener.Count // suppressed and lost records that were written
	taken        uint64         // of the records that reached the ring buffer: those of listeners that closed
	withheld     map[withheldKey]uint64
	surplus      map[suppressedKey]surplus // records that came after --count was reached
	suppressedAt time.Time
	tickedAt     time.Time
	cameAt       time.Time // the last tick before the last message
	quietAt      time.Time
	quietSeen    map[uint64]listener.Arrivals
	quietPast    listener.Past // of those that were forgotten, what was said by then
	quiet        bool
	buffer       *dropBuffer // the record being written
	kept         bool        // the stream keeps records, or parts of them
}

// New makes a trace of an open session.
func New(s *session.Session, stream render.Stream, options Options) *Trace {
	return &Trace{Session: s, stream: stream, options: options,
		seen:     make(map[suppressedKey]listener.Count),
		withheld: make(map[withheldKey]uint64), surplus: make(map[suppressedKey]surplus), kept: true}
}

// Run traces until the context ends.
func (t *Trace) Run(ctx context.Context) error {
	ready := t.Ready()
	ready.Time, ready.Rate, ready.Filters = event.Time{Time: t.Started}, t.options.Watch.Rate,
		t.options.Filters
	if err := t.stream.Ready(ready); err != nil {
		return err
	}
	if err := t.stream.Flush(); err != nil {
		return err
	}
	t.say(render.StatusLine(ready))
	if t.Listeners.Matching() == 0 {
		t.say("no listener matches yet; waiting for one")
	}
	t.suppressedAt, t.quietAt, t.quiet = time.Now(), time.Now(), true
	t.tickedAt, t.cameAt = t.suppressedAt, t.suppressedAt
	err := t.Probe.Read(ctx, t.message, t.tick, cmp.Or(t.options.Tick, idleTick))
	if err != nil && !errors.Is(err, cli.ErrEnough) {
		return cli.IgnoreClosedPipe(err)
	}
	t.SettleRefresh()
	if err := t.Probe.Stop(t.rest); err != nil {
		return cli.IgnoreClosedPipe(err)
	}
	return cli.IgnoreClosedPipe(t.finish())
}

// message is a record's journey: named, judged, described, written.
func (t *Trace) message(m *message.Message) error {
	t.cameAt = t.tickedAt
	switch m.Kind {
	case message.KindOpened:
		t.Listeners.Open(m)
		t.Owners.Opened(m.Listener.Socket, m.Listener.Inode, m.PID, m.Comm)
		return t.Judge()
	case message.KindClosed:
		t.Owners.Closed(m.Listener.Socket)
		t.Listeners.Close(m.Listener.Socket, m.Time)
		return nil
	}
	began := kernel.Monotonic()
	news := t.Listeners.Add(m.Listener)
	if m.Listener.Known {
		if err := t.nameHolders(m, began); err != nil {
			return err
		}
	} else if branch := m.Outcome.Branch(); branch.Stage == event.StageSyn ||
		branch.Stage == event.StageAck {
		t.RefreshUnasked() // the walk tells the kernel side who is given packets for elsewhere
	}
	if news {
		if m.Outcome.Branch().Cause == event.CauseListenerClosed { // its closing was told long ago
			t.Listeners.Close(m.Listener.Socket, m.Time)
		}
		if err := t.Judge(); err != nil {
			return err
		}
	}
	if !t.isWanted(m) {
		t.unwanted++
		t.withhold(m.Outcome, m.NetNS, 1)
		return t.enoughError()
	}
	t.Listeners.Meet(m.Listener.Socket)
	if t.enough() {
		t.pass(m)
		return cli.ErrEnough
	}
	if t.kept || t.buffer == nil {
		t.buffer = new(dropBuffer)
	}
	drop := t.describe(m, t.buffer)
	t.Sampling.Complete(drop, m.Listener.Socket, began)
	if err := t.stream.Drop(drop); err != nil {
		return err
	}
	t.quiet = false
	t.delivered++
	if action := m.Outcome.Branch().Action; action != event.ActionIgnored &&
		action != event.ActionUnknown {
		t.drops++
	}
	return t.enoughError()
}

func (t *Trace) enough() bool { return t.options.Count > 0 && t.drops >= t.options.Count }

func (t *Trace) enoughError() error {
	if t.enough() {
		return cli.ErrEnough
	}
	return nil
}

// isWanted asks the owner filters for listeners that the kernel side had not
// been told about when the packet died.
func (t *Trace) isWanted(m *message.Message) bool {
	if m.Listener.Known && !m.Listener.Member {
		for _, socket := range t.Listeners.Group(&m.Listener) {
			if t.Listeners.IsWanted(socket) {
				return true
			}
		}
		return false
	}
	return t.Listeners.IsWanted(m.Listener.Socket)
}

func (t *Trace) wall(mono uint64) event.Time {
	return event.Time{Time: time.Unix(0, int64(mono)+int64(t.Clock))}
}

// tick runs after records came, and now and then: flush what waits, tell what was held back,
// explain silence.
func (t *Trace) tick() error {
	t.Clock = kernel.WallClock()
	t.Rejudge()
	if err := t.RejudgeRenamed(); err != nil {
		return err
	}
	if err := t.stream.Flush(); err != nil {
		return err
	}
	if err := t.Probe.AttachLate(); err != nil {
		return err
	}
	now := time.Now()
	t.tickedAt = now
	if now.Sub(t.suppressedAt) >= time.Second {
		t.suppressedAt = now
		if now.Sub(t.cameAt) < suppressedFor {
			if err := t.writeSuppressed(); err != nil {
				return err
			}
		}
		err := errors.Join(t.forgetClosed(), t.Probe.Retire(), t.Probe.MakeRoom())
		if err != nil {
			return err
		}
	}
	if now.Sub(t.quietAt) >= cli.QuietEvery {
		if err := t.sayQuiet(now.Sub(t.quietAt)); err != nil {
			return err
		}
		t.quietAt, t.quiet = now, true
	}
	return nil
}

// sayQuiet says what was seen while nothing dropped.
func (t *Trace) sayQuiet(during time.Duration) error {
	arrivals, _, err := t.Probe.Arrivals()
	if err != nil {
		return err
	}
	before, past := t.quietSeen, t.Probe.Past()
	t.quietSeen = make(map[uint64]listener.Arrivals, len(arrivals))
	for i, a := range arrivals {
		t.quietSeen[a.Socket] = a
		arrivals[i].Syn -= before[a.Socket].Syn
		arrivals[i].Ack -= before[a.Socket].Ack
	}
	if t.quiet {
		seen := append(t.Seen(arrivals, nil), pastRows(past, t.quietPast)...)
		t.say(render.QuietLine(seen, during, t.options.Filters...))
	}
	t.quietPast = past
	return nil
}

func (t *Trace) say(line string) {
	cli.SayTo(t.options.Status, line)
}
