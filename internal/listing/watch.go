// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"context"
	"errors"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/counters"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// repeat lists again every interval, with rates where synspy may watch.
func (l *listing) repeat(ctx context.Context) error {
	if l.options.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.options.Duration)
		defer cancel()
	}
	watch := l.options.Watch
	watch.Owner, watch.Rate, watch.Accepts = owner.Filter{}, 1, true // records are not looked at
	s, err := session.OpenUntil(ctx, watch, l.log)
	if errors.Is(err, cli.ErrUnable) {
		l.withoutBPF(err)
		return l.repeatBlind(ctx)
	}
	if err != nil {
		return err
	}
	l.holders = s.Probe.EachHolder
	reader := &rateReader{probe: s.Probe}
	if err := reader.next(); err != nil {
		return errors.Join(err, s.Close())
	}
	last := time.Now()
	l.chosen.Keep = 0
	err = s.Probe.Read(ctx, l.noteClosed, func() error {
		if time.Since(last) < l.options.Interval {
			return nil
		}
		last = time.Now()
		if err := errors.Join(reader.next(), l.forgetClosed(s.Probe), s.Probe.AttachLate(),
			s.Probe.Retire(), s.Probe.MakeRoom()); err != nil {
			return err
		}
		if err := l.round(reader.of); err != nil {
			return err
		}
		return l.enough()
	}, session.PollInterval)
	if errors.Is(err, cli.ErrEnough) {
		err = nil
	}
	return errors.Join(err, s.Close())
}

func (l *listing) noteClosed(m *message.Message) error {
	if m.Kind == message.KindClosed {
		l.chosen.Close(m.Listener.Socket, m.Time)
	}
	return nil
}

// forgetClosed ends what is known of listeners that closed: there are no rates of theirs.
func (l *listing) forgetClosed(p *probe.Probe) error {
	l.chosen.Departed()
	old := l.chosen.Outdated()
	if len(old) == 0 {
		return nil
	}
	still, err := p.Forget(old, func(listener.Arrivals) bool { return false })
	l.chosen.Forget(old, still)
	return err
}

// repeatBlind is the same without BPF.
func (l *listing) repeatBlind(ctx context.Context) error {
	ticker := time.NewTicker(l.options.Interval)
	defer ticker.Stop()
	for {
		if err := l.round(nil); err != nil {
			return err
		}
		if l.enough() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (l *listing) enough() error {
	if l.options.Count > 0 && l.rounds >= l.options.Count {
		return cli.ErrEnough
	}
	return nil
}

// rateReader makes rates of what the probe counts: the one place that does.
type rateReader struct {
	probe       *probe.Probe
	at          time.Time
	elapsed     time.Duration
	now, before map[uint64]listener.Arrivals

	accepts, acceptsBefore map[uint64]listener.Accepting
	undivided              map[uint64]bool
}

// next begins a new interval.
func (r *rateReader) next() error {
	arrivals, _, err := r.probe.Arrivals()
	if err != nil {
		return err
	}
	now := make(map[uint64]listener.Arrivals, len(arrivals))
	for _, a := range arrivals {
		now[a.Socket] = a
	}
	accepts, err := r.probe.Accepting()
	if err != nil {
		return err
	}
	if r.undivided, err = r.probe.UndividedNow(); err != nil {
		return err
	}
	r.before, r.now = r.now, now
	r.acceptsBefore, r.accepts = r.accepts, accepts
	r.elapsed, r.at = time.Since(r.at), time.Now()
	return nil
}

// of returns a listener's rates over the last interval; nil where they are not known.
func (r *rateReader) of(socket uint64) *event.Rates {
	if socket == 0 || r.before == nil || r.elapsed < counters.MinInterval ||
		r.undivided[socket] {
		return nil
	}
	syns := float64(r.now[socket].Syn-min(r.before[socket].Syn,
		r.now[socket].Syn)) / r.elapsed.Seconds()
	rates := &event.Rates{SYNs: &syns}
	// One that no connection ever reached has no row, and accepted none.
	before, now := r.acceptsBefore[socket], r.accepts[socket]
	if now.Proof != event.ProofUnknown || now.Arrivals == 0 {
		accepts := float64(now.Accepts-min(before.Accepts,
			now.Accepts)) / r.elapsed.Seconds()
		rates.Accepts = &accepts
	}
	return rates
}
