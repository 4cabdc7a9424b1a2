// SPDX-License-Identifier: Apache-2.0

package probe

// requestTimer is the function of every half-open handshake's timer.
const requestTimer = "reqsk_timer_handler"

// rejectFunction is netfilter's answer to a TCP packet that it rejects, often in a
// module of its own.
const rejectFunction = "nf_send_reset"

func timerEvents() []string { return []string{"timer_expire_entry", "timer_expire_exit"} }

// The drop of a half-open handshake whose listener has closed: by its function, or by
// its timer, which is stopped.
const (
	goneFunction = "inet_csk_reqsk_queue_drop_and_put"
	goneEvent    = "timer_cancel"
)

// deaths are functions that tell of ends which move no counter of the listen path.
func deaths() []function {
	return []function{
		{requestTimer, false, "handshakes that expire", "", "", 0},
		{goneFunction, false, "handshake ACKs whose listener has closed", "", "", 0},
		{"tcp_timewait_state_process", false,
			"SYNs that a TIME_WAIT socket refuses", "", "", 0},
		{"tcp_v4_send_reset", false, "which IPv4 packets an RST answered", "IPv4", "", 0},
		{"tcp_v6_send_reset", false, "which IPv6 packets an RST answered", "IPv6", "", 0},
		{"security_inet_conn_request", false, "refusals of a security module", "", "", 0},
	}
}

// needed tells whether the function tells anything on this kernel that nothing else
// does. resets says that tcp_send_reset is hooked, or nothing can stand in for it.
func (f *Facts) needed(function string, resets bool) bool {
	switch function {
	case "tcp_timewait_state_process":
		return !f.tellSockets()
	case "tcp_v4_send_reset", "tcp_v6_send_reset":
		return !resets || len(f.Reasons) == 0
	case "security_inet_conn_request": // on the path of every SYN
		return f.LSM
	}
	return true
}

// deathHooks see the ends that move no counter: SYNs freed before any listener, packets
// that do not fit their handshake, timers, closing listeners. plan is the backend that
// sees the listen path, backend the one that was asked for.
func deathHooks(facts *Facts, plan, backend string) []Hook {
	var hooks []Hook
	if plan != Tracepoint {
		// No counter depends on it here, so it has no twin: what it misses is told.
		hooks = append(hooks, tracepointHook(facts, "kfree_skb", "deaths before the listener", "tp_btf_kfree_skb"))
	}
	resets := tracepointHook(facts, "tcp_send_reset", "resets, and why they were sent", "tp_btf_tcp_send_reset")
	hooks = append(hooks, resets)
	hooks = append(hooks, answerHook(facts))
	if plan == Tracepoint {
		hooks = append(hooks, timerHooks(facts)...)
	}
	for _, f := range deaths() {
		switch {
		case !facts.needed(f.name, resets.Backend != "" || plan == Tracepoint):
		case plan == Tracepoint && (f.name == requestTimer || f.name == goneFunction): // timerHooks
		case plan == Tracepoint:
			hooks = append(hooks, Hook{Name: f.name, Note: "takes more than tracepoints; not seen: " + f.why})
		default:
			trampolines, kprobes := deathPrograms(f.name)
			hooks = append(hooks, hookFunction(facts, backend, f, trampolines, kprobes))
		}
	}
	return hooks
}

// answerEvent is where every packet that is sent passes, and the answers of netfilter's REJECT.
const answerEvent = "net_dev_queue"

// answerHook sees those. Where no rule rejects it is attached later, if one comes: see
// [Probe.AttachLate].
func answerHook(facts *Facts) Hook {
	const why = "which packets netfilter rejects"
	hook := tracepointHook(facts, answerEvent, why, "tp_btf_"+answerEvent)
	if hook.hooked() && !facts.Rejects {
		hook.Late, hook.Programs = hook.Programs[0], nil
		hook.Note = "attached once a rule rejects"
	}
	return hook
}

// deathPrograms lists the programs that a function's hook takes.
func deathPrograms(function string) (trampolines, kprobes []string) {
	switch function {
	case requestTimer:
		return []string{"fentry_" + function, "fexit_" + function}, []string{"kretprobe_" + function, "kprobe_" + function}
	case "tcp_timewait_state_process":
		return []string{"fexit_" + function}, []string{"kretprobe_" + function, "kprobe_" + function}
	case "security_inet_conn_request":
		return []string{"fexit_" + function}, []string{"kretprobe_" + function}
	}
	return []string{"fentry_" + function}, []string{"kprobe_" + function}
}

// timerHooks see the timers of half-open handshakes from outside: those that expire by
// both of their events or by neither, those that are stopped by a third.
func timerHooks(facts *Facts) []Hook {
	const expire = "handshakes that expire"
	begins, ends := timerEvents()[0], timerEvents()[1]
	hooks := []Hook{timerHook(facts, begins, expire), timerHook(facts, ends, expire),
		timerHook(facts, goneEvent, "handshake ACKs whose listener has closed")}
	for i, other := range []int{1, 0} {
		if hooks[i].Backend != "" && hooks[other].Backend == "" {
			hooks[i] = Hook{Name: hooks[i].Name, Note: "needs " + hooks[other].Name + "; not seen: " + expire}
		}
	}
	return hooks
}

func timerHook(facts *Facts, name, why string) Hook {
	if len(facts.Code[requestTimer]) == 0 {
		return Hook{Name: name, Note: "kernel symbols do not name " + requestTimer + "; not seen: " + why}
	}
	return tracepointHook(facts, name, why, "tp_btf_"+name)
}

// How many arguments kfree_skb has once it tells the reason, 5.17, and the socket, 6.11.
const (
	reasonArgs   = 3
	rxSocketArgs = 4
)

// tracepointHook is a hook that one can do without.
func tracepointHook(facts *Facts, name, why string, programs ...string) Hook {
	hook := Hook{Name: name}
	_, exists := facts.Tracepoints[name]
	switch err := facts.refusal(name, Tracepoint); {
	case !exists:
		hook.Note = "not in the kernel's type information; not seen: " + why
	case err != nil:
		hook.Note = refusedNote(why, err)
	case name == "kfree_skb" && len(facts.Code) == 0:
		hook.Note = "needs kernel symbols; not seen: " + why
	default:
		hook.Backend, hook.Programs = Tracepoint, programs
	}
	return hook
}
