// SPDX-License-Identifier: Apache-2.0

package plan

import "github.com/synspy/synspy/internal/probe/facts"

// deathHooks see the ends that move no counter: SYNs freed before any listener, packets
// that do not fit their handshake, timers, closing listeners. plan is the backend that
// sees the listen path, backend the one that was asked for.
func deathHooks(here *facts.Facts, plan, backend string) []Hook {
	var hooks []Hook
	if plan != facts.Tracepoint {
		// No counter depends on it here, so it has no twin: what it misses is told.
		hooks = append(hooks,
			tracepointHook(here, "kfree_skb", "deaths before the listener",
				"tp_btf_kfree_skb"))
	}
	resets := tracepointHook(here, "tcp_send_reset", "resets, and why they were sent",
		"tp_btf_tcp_send_reset")
	hooks = append(hooks, resets)
	hooks = append(hooks, answerHook(here))
	if plan == facts.Tracepoint {
		hooks = append(hooks, timerHooks(here)...)
	}
	for _, f := range facts.Deaths() {
		switch {
		case !here.Needed(f.Name, resets.Backend != "" || plan == facts.Tracepoint):
		case plan == facts.Tracepoint && (f.Name == facts.RequestTimer ||
			f.Name == facts.GoneFunction): // timerHooks
		case plan == facts.Tracepoint:
			hooks = append(hooks,
				Hook{Name: f.Name, Note: "takes more than tracepoints; not seen: " +
					f.Why})
		default:
			trampolines, kprobes := deathPrograms(f.Name)
			hooks = append(hooks, hookFunction(here, backend, f, trampolines, kprobes))
		}
	}
	return hooks
}

// answerHook sees the answers that netfilter gives to packets that it rejects. Where no rule rejects it is attached later, if one comes: see
// [Probe.AttachLate].
func answerHook(here *facts.Facts) Hook {
	const why = "which packets netfilter rejects"
	hook := tracepointHook(here, facts.AnswerEvent, why, "tp_btf_"+facts.AnswerEvent)
	if hook.hooked() && !here.Rejects {
		hook.Late, hook.Programs = hook.Programs[0], nil
		hook.Note = "attached once a rule rejects"
	}
	return hook
}

// deathPrograms lists the programs that a function's hook takes.
func deathPrograms(function string) (trampolines, kprobes []string) {
	switch function {
	case facts.RequestTimer:
		return []string{"fentry_" + function, "fexit_" + function}, []string{"kretprobe_" +
			function, "kprobe_" + function}
	case "tcp_timewait_state_process":
		return []string{"fexit_" + function}, []string{"kretprobe_" + function, "kprobe_" +
			function}
	case "security_inet_conn_request":
		return []string{"fexit_" + function}, []string{"kretprobe_" + function}
	}
	return []string{"fentry_" + function}, []string{"kprobe_" + function}
}

// timerHooks see the timers of half-open handshakes from outside: those that expire by
// both of their events or by neither, those that are stopped by a third.
func timerHooks(here *facts.Facts) []Hook {
	const expire = "handshakes that expire"
	begins, ends := facts.TimerEvents()[0], facts.TimerEvents()[1]
	hooks := []Hook{timerHook(here, begins, expire), timerHook(here, ends, expire),
		timerHook(here, facts.GoneEvent, "handshake ACKs whose listener has closed")}
	for i, other := range []int{1, 0} {
		if hooks[i].Backend != "" && hooks[other].Backend == "" {
			hooks[i] = Hook{Name: hooks[i].Name, Note: "needs " + hooks[other].Name +
				"; not seen: " + expire}
		}
	}
	return hooks
}

func timerHook(here *facts.Facts, name, why string) Hook {
	if len(here.Code[facts.RequestTimer]) == 0 {
		return Hook{Name: name, Note: "kernel symbols do not name " + facts.RequestTimer +
			"; not seen: " + why}
	}
	return tracepointHook(here, name, why, "tp_btf_"+name)
}

// tracepointHook is a hook that one can do without.
func tracepointHook(here *facts.Facts, name, why string, programs ...string) Hook {
	hook := Hook{Name: name}
	_, exists := here.Tracepoints[name]
	switch err := here.Refusal(name, facts.Tracepoint); {
	case !exists:
		hook.Note = "not in the kernel's type information; not seen: " + why
	case err != nil:
		hook.Note = refusedNote(why, err)
	case name == "kfree_skb" && len(here.Code) == 0:
		hook.Note = "needs kernel symbols; not seen: " + why
	default:
		hook.Backend, hook.Programs = facts.Tracepoint, programs
	}
	return hook
}
