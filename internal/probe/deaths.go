package probe

// requestTimer is the function of every half-open handshake's timer.
const requestTimer = "reqsk_timer_handler"

// rejectFunction is netfilter's answer to a TCP packet that it rejects, often in a
// module of its own.
const rejectFunction = "nf_send_reset"

func timerEvents() []string { return []string{"timer_expire_entry", "timer_expire_exit"} }

// deaths are functions that tell of ends which move no counter of the listen path.
func deaths() []function {
	return []function{
		{requestTimer, false, "handshakes that expire", ""},
		{"inet_csk_reqsk_queue_drop_and_put", false, "handshake ACKs whose listener has closed", ""},
		{"tcp_timewait_state_process", false, "SYNs that a TIME_WAIT socket refuses", ""},
		{"tcp_v4_send_reset", false, "which IPv4 packets an RST answered", ""},
		{"tcp_v6_send_reset", false, "which IPv6 packets an RST answered", ""},
		{"security_inet_conn_request", false, "refusals of a security module", ""},
	}
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
	hooks = append(hooks, tracepointHook(facts, "tcp_send_reset", "resets, and why they were sent", "tp_btf_tcp_send_reset"))
	if facts.Rejects {
		hooks = append(hooks, tracepointHook(facts, "net_dev_queue", "which packets netfilter rejects with an RST",
			"tp_btf_net_dev_queue"))
	}
	if plan == Tracepoint {
		for _, name := range timerEvents() {
			hook := tracepointHook(facts, name, "handshakes that expire", "tp_btf_"+name)
			if len(facts.Code[requestTimer]) == 0 {
				hook = Hook{Name: name, Note: "kernel symbols do not name " + requestTimer + "; not seen: handshakes that expire"}
			}
			hooks = append(hooks, hook)
		}
		return append(hooks, Hook{Name: "inet_csk_reqsk_queue_drop_and_put",
			Note: "takes more than tracepoints; not seen: handshake ACKs whose listener has closed"})
	}
	for _, f := range deaths() {
		var trampolines, kprobes []string
		switch f.name {
		case requestTimer:
			trampolines = []string{"fentry_" + f.name, "fexit_" + f.name}
			kprobes = []string{"kretprobe_" + f.name, "kprobe_" + f.name}
		case "inet_csk_reqsk_queue_drop_and_put":
			trampolines, kprobes = []string{"fentry_" + f.name}, []string{"kprobe_" + f.name}
		case "tcp_timewait_state_process":
			if facts.Tracepoints["kfree_skb"] >= rxSocketArgs {
				continue // which tells the socket
			}
			trampolines = []string{"fexit_" + f.name}
			kprobes = []string{"kretprobe_" + f.name, "kprobe_" + f.name}
		case "tcp_v4_send_reset", "tcp_v6_send_reset":
			if len(facts.Reasons) > 0 {
				continue // tell as much
			}
			trampolines, kprobes = []string{"fentry_" + f.name}, []string{"kprobe_" + f.name}
		case "security_inet_conn_request":
			if !facts.LSM {
				continue // on the path of every SYN, and none can refuse
			}
			trampolines, kprobes = []string{"fexit_" + f.name}, []string{"kretprobe_" + f.name}
		}
		hooks = append(hooks, hookFunction(facts, backend, f, trampolines, kprobes))
	}
	return hooks
}

// rxSocketArgs is how many arguments kfree_skb has once it tells the socket: 6.11.
const rxSocketArgs = 4

// tracepointHook is a hook that one can do without.
func tracepointHook(facts *Facts, name, why string, programs ...string) Hook {
	hook := Hook{Name: name}
	_, exists := facts.Tracepoints[name]
	switch {
	case !exists || !facts.Tracepoint.Maybe():
		hook.Note = "not to be had; not seen: " + why
	case facts.refusedHooks[name] != nil:
		hook.Note = "refused: " + facts.refusedHooks[name].Error() + "; not seen: " + why
	case name == "kfree_skb" && len(facts.Code) == 0:
		hook.Note = "needs kernel symbols; not seen: " + why
	default:
		hook.Backend, hook.Programs = Tracepoint, programs
	}
	return hook
}
