// SPDX-License-Identifier: Apache-2.0

package plan

import "github.com/synspy/synspy/internal/probe/facts"

// acceptPrograms lists the programs that a function's hook takes.
func acceptPrograms(function string) (trampolines, kprobes []string) {
	if function == facts.AcceptFunction {
		return []string{"fexit_" + function}, []string{"kretprobe_" + function, "kprobe_" +
			function}
	}
	return []string{"fentry_" + function}, []string{"kprobe_" + function}
}

// acceptHooks see who accepts what. With tracepoints there is nothing to hook: what
// enters the queues is told by the handshakes that succeed, the rest by the queues'
// lengths and by who has connections of a listener open.
func acceptHooks(here *facts.Facts, plan, backend string) []Hook {
	again := tracepointHook(here, facts.AnswerAgain, "SYN-ACKs that are sent again",
		"tp_btf_"+facts.AnswerAgain)
	again.Accepts = true
	if plan == facts.Tracepoint {
		return []Hook{again,
			{Name: facts.AcceptFunction, Accepts: true,
				Note: "takes more than tracepoints; an acceptor is who has " +
					"a connection open that it accepted itself, accepts are inferred from the queue; not seen: " +
					"when a process last accepted, and time spent in the accept queue"}}
	}
	hooks := []Hook{again}
	for _, f := range facts.AcceptSide() {
		trampolines, kprobes := acceptPrograms(f.Name)
		by := backend
		if f.Name == facts.AcceptFunction && !here.LeavesSleepers() {
			by = facts.Kprobe
		}
		hook := hookFunction(here, by, f, trampolines, kprobes)
		switch {
		case by == backend:
		case backend == facts.Trampoline:
			hook = Hook{Name: f.Name, Note: whySleepers + "; not seen: " + f.Why}
		case backend == facts.Auto && hook.Backend == facts.Kprobe:
			hook.Note = whySleepers
		}
		hook.Accepts = true
		hooks = append(hooks, hook)
	}
	return hooks
}

// whySleepers is why a trampoline will not do for a function that sleeps.
const whySleepers = "this kernel frees a trampoline even if a task sleeps in what it called"
