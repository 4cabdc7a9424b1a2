// SPDX-License-Identifier: Apache-2.0

// Package plan chooses the hooks for a kernel, and says what is not told for want of one. It is
// pure: facts in, a plan out, so that plans of every kernel are tested anywhere.
package plan

import (
	"errors"
	"fmt"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"slices"
)

// Hook is one line of the plan: what is hooked, how, and by which programs.
type Hook struct {
	Name     string
	Backend  string   // empty: not hooked
	Programs []string // as in bpf/synspy.bpf.c
	Late     string   // another one, loaded with them and attached by [Probe.AttachLate]; empty: none
	Note     string
	Core     bool
	Accepts  bool          // serves Config.Accepts alone
	Blind    []event.Blind // what is not told for want of it, or of what it lacks here
}

// awaits reports whether the plan may attach something there later.
func (p *Plan) awaits(name string) bool {
	return slices.ContainsFunc(p.Hooks,
		func(h Hook) bool { return h.Name == name && h.Late != "" })
}

// hooked reports whether the plan attaches anything there at the start.
func (h *Hook) hooked() bool { return h.Backend != "" && len(h.Programs) > 0 }

// All lists its programs, with the one that comes later.
func (h *Hook) All() []string {
	if h.Late == "" {
		return h.Programs
	}
	return append(slices.Clone(h.Programs), h.Late)
}

// Plan is what will be attached on this kernel: plain data.
type Plan struct {
	Backend string // trampoline, kprobe, tracepoint, or trampoline+kprobe
	Hooks   []Hook
}

// maxTrampolineArgs is how many arguments a trampoline takes everywhere: x86
// refuses more before 6.6, and a kprobe serves as well.
const maxTrampolineArgs = 6

// Make plans the hooks for a kernel. backend is one of Backends.
func Make(here *facts.Facts, backend string) (Plan, error) {
	if here.BTF != nil {
		return Plan{}, here.BTF
	}
	if here.MIBErr != nil {
		return Plan{}, fmt.Errorf("%w: %w", facts.ErrCannotTrace, here.MIBErr)
	}
	here.ReadCode()
	plan, err := packetHooks(here, backend)
	if err != nil {
		return Plan{}, err
	}
	plan.Hooks = append(plan.Hooks, deathHooks(here, plan.Backend, backend)...)
	plan.Hooks = append(plan.Hooks, acceptHooks(here, plan.Backend, backend)...)
	plan.Hooks = append(plan.Hooks, ownerHooks(here, plan.Backend, backend)...)
	plan.findBlind(here)
	return plan, nil
}

// Attaches reports whether the plan hooks all of these.
func (p *Plan) Attaches(names ...string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(p.Hooks,
			func(h Hook) bool { return h.Name == name && h.hooked() }) {
			return false
		}
	}
	return true
}

// Lists reports whether the plan has a line for it, hooked or not.
func (p *Plan) Lists(name string) bool {
	return slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.Name == name })
}

// packetHooks chooses between the listen path's own functions and, where those
// cannot be hooked, the tracepoints that free its packets.
func packetHooks(here *facts.Facts, backend string) (Plan, error) {
	var pathErr error
	if backend != facts.Tracepoint {
		var hooks []Hook
		if hooks, pathErr = pathHooks(here, backend); pathErr == nil {
			return Plan{Backend: backendOf(hooks), Hooks: hooks}, nil
		}
		if backend != facts.Auto {
			return Plan{}, pathErr
		}
	}
	hooks, err := eventHooks(here)
	if err != nil {
		return Plan{}, errors.Join(err, pathErr)
	}
	return Plan{Backend: facts.Tracepoint, Hooks: hooks}, nil
}

// pathHooks hooks the listen path's functions at their exits. Counters that move
// between two exits moved in the function that exits, if all are hooked; where one
// is not, entries are hooked too, so that its movements are no other packet's.
func pathHooks(here *facts.Facts, backend string) ([]Hook, error) {
	var hooks []Hook
	for _, f := range facts.ListenPath() {
		if f.With != "" && !here.Has(f.With) && !here.Has(f.Name) {
			continue // nor anything to see
		}
		programs := []string{"fexit_" + f.Name}
		if f.Name == "tcp_req_err" { // frees what its exit would have to read
			programs = []string{"fentry_" + f.Name, "fexit_" + f.Name}
		}
		hook := hookFunction(here, backend, f, programs,
			[]string{"kretprobe_" + f.Name, "kprobe_" + f.Name})
		if f.Core && hook.Backend == "" {
			return nil, errors.Join(fmt.Errorf("%w: %s: %s", facts.ErrCannotTrace,
				f.Name, hook.Note),
				here.Trampoline.Err, here.Kprobe.Err)
		}
		hooks = append(hooks, hook)
	}
	if slices.ContainsFunc(hooks, func(h Hook) bool { return h.Backend == "" }) {
		for i := range hooks {
			if h := &hooks[i]; h.Backend == facts.Trampoline && len(h.Programs) == 1 {
				h.Programs = append([]string{"fentry_" + h.Name}, h.Programs...)
			}
		}
	}
	return hooks, nil
}

// hookFunction hooks one function by a trampoline or, where that is refused, kprobes.
func hookFunction(here *facts.Facts, backend string, f facts.Function, trampolines,
	kprobes []string) Hook {
	hook := Hook{Name: f.Name, Core: f.Core}
	args, typed := here.Functions[f.Name]
	trampolineErr, kprobeErr := here.Refusal(f.Name, facts.Trampoline), here.Refusal(f.Name,
		facts.Kprobe)
	switch {
	case !here.Has(f.Name):
		hook.Note = "not in this kernel; not seen: " + f.Why
	case typed && trampolineErr == nil && args <= maxTrampolineArgs && backend != facts.Kprobe:
		hook.Backend, hook.Programs = facts.Trampoline, trampolines
	case kprobeErr == nil && backend != facts.Trampoline:
		hook.Backend, hook.Programs = facts.Kprobe, kprobes
		switch {
		case backend == facts.Kprobe:
		case !typed:
			hook.Note = "not in the kernel's type information, which a trampoline needs"
		case args > maxTrampolineArgs:
			hook.Note = fmt.Sprintf("a trampoline refuses %d arguments", args)
		default:
			hook.Note = trampolineErr.Error()
		}
	case args > maxTrampolineArgs:
		hook.Note = fmt.Sprintf("a trampoline refuses %d arguments; not seen: %s", args,
			f.Why)
	default:
		hook.Note = refusedNote(f.Why,
			here.RefusedHooks[facts.Attempt{Hook: f.Name,
				Backend: facts.Trampoline}], here.RefusedHooks[facts.Attempt{Hook: f.Name, Backend: facts.Kprobe}])
	}
	return hook
}

// refusedNote says what each backend said of one hook, and what is not seen for it.
func refusedNote(why string, errs ...error) string {
	note := "refused"
	for _, err := range errs {
		if err != nil {
			note += ": " + err.Error()
		}
	}
	return note + "; not seen: " + why
}

// eventHooks sees the same packets by the tracepoints that free them.
func eventHooks(here *facts.Facts) ([]Hook, error) {
	var hooks []Hook
	for _, f := range facts.FreeEvents() {
		if _, exists := here.Tracepoints[f.Name]; !exists {
			return nil, fmt.Errorf("%w: tracepoint %s is %w", facts.ErrCannotTrace,
				f.Name, facts.ErrNoType)
		}
		if !here.Tracepoint.Maybe() {
			return nil, fmt.Errorf("%w: %w", facts.ErrCannotTrace, here.Tracepoint.Err)
		}
		program := "tp_btf_" + f.Name
		hook := Hook{Name: f.Name, Backend: facts.Tracepoint,
			Programs: []string{program, program + facts.Twin}, Core: f.Core}
		if f.Name == "inet_sock_set_state" {
			hook.Programs, hook.Late = []string{program}, program+facts.Twin
		}
		if f.Name == "consume_skb" && here.Tracepoints[f.Name] < 2 {
			hook.Note = "does not tell the place (6.5 does): packets are told apart by their state"
		}
		if f.Name == "kfree_skb" && len(here.Code) == 0 {
			return nil, fmt.Errorf("%w: tracepoint kfree_skb needs kernel symbols: %w",
				facts.ErrCannotTrace, here.CodeErr)
		}
		if f.Name == "kfree_skb" && here.IsSplit() {
			return nil, fmt.Errorf("%w: %w", facts.ErrCannotTrace, facts.ErrSplit)
		}
		hooks = append(hooks, hook)
	}
	return hooks, nil
}

// ownerHooks find who holds the listeners, whatever sees the packets.
func ownerHooks(here *facts.Facts, plan, backend string) []Hook {
	hooks := listenHooks(here, plan, backend)
	files := Hook{Name: "iter/task_file"}
	const without = "holders are read from /proc instead, and the first drop in each namespace that listened before is not counted"
	_, iterates := here.Functions["bpf_iter_task_file"]
	switch err := here.Refusal(files.Name, facts.Iterator); {
	case !iterates:
		files.Note = without
	case err != nil:
		files.Note = "refused: " + err.Error() + "; " + without
	default:
		files.Backend, files.Programs = facts.Iterator, []string{"iter_task_file"}
	}
	return append(hooks, files)
}

func backendOf(hooks []Hook) string {
	var trampoline, kprobe bool
	for _, hook := range hooks {
		trampoline = trampoline || hook.Backend == facts.Trampoline
		kprobe = kprobe || hook.Backend == facts.Kprobe
	}
	switch {
	case trampoline && kprobe:
		return facts.Trampoline + "+" + facts.Kprobe
	case kprobe:
		return facts.Kprobe
	default:
		return facts.Trampoline
	}
}

// Events returns the plan as the ready record shows it.
func (p Plan) Events() []event.Hook {
	hooks := make([]event.Hook, 0, len(p.Hooks))
	for _, hook := range p.Hooks {
		hooks = append(hooks, event.Hook{Name: hook.Name, Backend: hook.Backend,
			Attached: hook.hooked(), Note: hook.Note, Blind: hook.Blind})
	}
	return hooks
}

// Uses reports whether any hook has the backend.
func (p Plan) Uses(backend string) bool {
	return slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.Backend == backend })
}
