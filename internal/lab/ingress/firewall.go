// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"

	"github.com/google/nftables"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

func action(r world.Ruling) event.Action {
	if r.Refusal != "" {
		return event.ActionReset
	}
	return event.ActionDropped
}

// playFirewall puts a rule before one of two ports of a healthy process.
func playFirewall(f world.Family, hook *nftables.ChainHook, rule world.Ruling) scenario.PlayFunc {
	bound, s := f.Listener, f.Server
	const open = world.Port + 1
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		if err := w.Firewall(s, hook, rule.Verdict); err != nil {
			return none, err
		}
		if _, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{
			{Addr: bound, Backlog: world.Backlog}, {Addr: world.At(bound, open),
				Backlog: world.Backlog},
		}}); err != nil {
			return none, err
		}
		dead, err := w.Burst(ctx, s, 3)
		if err != nil {
			return none, err
		}
		if err := dead[0].SYN(); err != nil {
			return none, err
		}
		dead = append(dead, dead[0])
		answered, err := w.Burst(ctx, world.At(s, open), 2)
		if err != nil {
			return none, err
		}
		onWire := event.ActionDropped // an ICMP error is no RST
		if rule.Refusal == world.RejectRST().Refusal {
			onWire = event.ActionReset
		}
		if err := errors.Join(scenario.WantAction(onWire, dead...),
			scenario.WantAnswers(answered, len(answered))); err != nil {
			return none, err
		}
		log("nftables kept %d SYNs from the listener (%v); %d to the next port were answered", len(dead), action(rule), len(answered))
		e := scenario.Ingress(event.CauseNetfilter, action(rule), dead...)
		e.Records[0].Hook, e.Records[0].Refusal, e.Records[0].Sees = hookName(hook),
			rule.Refusal, rule.Sees
		return e, nil
	}
}

func hookName(hook *nftables.ChainHook) string {
	switch hook {
	case world.HookPrerouting:
		return "prerouting"
	case world.HookOutput:
		return "output"
	case world.HookIngress:
		return "ingress"
	}
	return "input"
}
