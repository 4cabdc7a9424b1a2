// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/synspy/synspy/internal/canary"
	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/counters"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// CanaryOptions are those of synspy canary.
type CanaryOptions struct {
	Targets  []string // HOST:PORT
	IPv4     bool     // only
	IPv6     bool     // only
	Interval time.Duration
	Timeout  time.Duration // of one probe
	Count    uint64        // probes of each target, 0: no limit
	Duration time.Duration // 0: until told to stop
	Status   io.Writer     // for people: standard error
}

// ErrNotConnected says that a target was never reached.
var ErrNotConnected = errors.New("no connection")

// A kernel gives up by itself after about two minutes (tcp_syn_retries=6).
const mostTimeout = 10 * time.Minute

// Canary connects to the targets again and again, and writes how long that takes.
// Errors wrap ErrUsage, ErrNotConnected, or are those of the writer.
func Canary(ctx context.Context, to io.Writer, writing cli.Writing, options CanaryOptions) error {
	targets, err := options.targets()
	if err != nil {
		return err
	}
	config := canary.Config{Network: "ip", Interval: options.Interval, Timeout: options.Timeout,
		Count: options.Count}
	switch {
	case options.IPv4:
		config.Network = "ip4"
	case options.IPv6:
		config.Network = "ip6"
	}
	if options.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, options.Duration)
		defer cancel()
	}
	ctx, gone := whileRead(ctx, to)
	cli.SayTo(options.Status,
		fmt.Sprintf("connecting to %s every %v", render.Plural(len(targets), "target"),
			options.Interval))
	out := render.NewCanary(to, writing.Options, options.Targets)
	summaries, err := canary.Run(ctx, targets, config, out.Probe)
	if err := errors.Join(err, gone()); err != nil {
		return err
	}
	if err := out.Summaries(summaries); err != nil {
		return err
	}
	return connectedAll(summaries)
}

func (o *CanaryOptions) targets() ([]*canary.Target, error) {
	switch {
	case len(o.Targets) == 0:
		return nil, cli.Usage("canary takes at least one HOST:PORT")
	case len(o.Targets) > canary.MaxTargets:
		return nil, cli.Usage("%d targets: canary takes %d at most", len(o.Targets),
			canary.MaxTargets)
	case o.Interval < canary.MinInterval:
		return nil, cli.Usage("--interval %v: want %v or more", o.Interval,
			canary.MinInterval)
	case o.Timeout <= 0 || o.Timeout > mostTimeout:
		return nil, cli.Usage("--timeout %v: want a time up to %v", o.Timeout, mostTimeout)
	case o.Duration < 0:
		return nil, cli.Usage("--duration %v: want a time like 30s", o.Duration)
	case o.IPv4 && o.IPv6:
		return nil, cli.Usage("--ipv4 and --ipv6 exclude each other")
	}
	var targets []*canary.Target
	for i, text := range o.Targets {
		target, err := canary.ParseTarget(text)
		switch {
		case err != nil:
			return nil, cli.Usage("%w", err)
		case slices.Contains(o.Targets[:i], text):
			return nil, cli.Usage("%q is given twice: its probes would be told apart by nothing", text)
		case o.IPv4 && !target.Fits("ip4"):
			return nil, cli.Usage("--ipv4 does not go with %q", text)
		case o.IPv6 && !target.Fits("ip6"):
			return nil, cli.Usage("--ipv6 does not go with %q", text)
		}
		targets = append(targets, target)
	}
	return targets, nil
}

// connectedAll fails, as ping does, where a target was probed and never reached.
func connectedAll(summaries []event.CanarySummary) error {
	var never []string
	for _, s := range summaries {
		if s.Sent > 0 && s.Outcomes[event.CanaryConnected] == 0 {
			never = append(never, s.Target)
		}
	}
	if len(never) == 0 {
		return nil
	}
	return fmt.Errorf("%w to %s", ErrNotConnected, strings.Join(never, ", "))
}

// whileRead returns a context that ends when nobody reads any more what is
// written there, and a function that then returns EPIPE. It must be called.
func whileRead(ctx context.Context, to io.Writer) (context.Context, func() error) {
	ctx, cancel := context.WithCancelCause(ctx)
	gone, done := cli.ReaderGone(to), make(chan struct{})
	go func() {
		defer close(done)
		reader := time.NewTicker(counters.ReaderEvery)
		defer reader.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-reader.C:
				if gone() {
					cancel(syscall.EPIPE)
				}
			}
		}
	}()
	return ctx, func() error {
		cancel(nil)
		<-done
		if errors.Is(context.Cause(ctx), syscall.EPIPE) {
			return syscall.EPIPE
		}
		return nil
	}
}
