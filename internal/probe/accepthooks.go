// SPDX-License-Identifier: Apache-2.0

package probe

import "slices"

// The functions that connections go through from the accept queue to a process.
const (
	enqueueFunction = "inet_csk_reqsk_queue_add"
	acceptFunction  = "inet_csk_accept"
	graftFunction   = "security_sock_graft"
)

// AnswerAgain is the hook that sees SYN-ACKs being sent again.
const AnswerAgain = "tcp_retransmit_synack"

// acceptSide is hooked for Config.Accepts alone, and can be done without.
func acceptSide() []function {
	return []function{
		{enqueueFunction, false,
			"which connections of Fast Open enter the accept queues", "", "", 0},
		{acceptFunction, false,
			"accepts, when each process last accepted, and time spent in the accept queue", "", "", 0},
		{graftFunction, false,
			"the first accept of a task that already slept in accept()", "", "", 0},
	}
}

// acceptPrograms lists the programs that a function's hook takes.
func acceptPrograms(function string) (trampolines, kprobes []string) {
	if function == acceptFunction {
		return []string{"fexit_" + function}, []string{"kretprobe_" + function, "kprobe_" + function}
	}
	return []string{"fentry_" + function}, []string{"kprobe_" + function}
}

// acceptHooks see who accepts what. With tracepoints there is nothing to hook: what
// enters the queues is told by the handshakes that succeed, the rest by the queues'
// lengths and by who has connections of a listener open.
func acceptHooks(facts *Facts, plan, backend string) []Hook {
	again := tracepointHook(facts, AnswerAgain, "SYN-ACKs that are sent again", "tp_btf_"+AnswerAgain)
	again.Accepts = true
	if plan == Tracepoint {
		return []Hook{again, {Name: acceptFunction, Accepts: true, Note: "takes more than tracepoints; an acceptor is who has " +
			"a connection open that it accepted itself, accepts are inferred from the queue; not seen: " +
			"when a process last accepted, and time spent in the accept queue"}}
	}
	hooks := []Hook{again}
	for _, f := range acceptSide() {
		trampolines, kprobes := acceptPrograms(f.name)
		by := backend
		if f.name == acceptFunction && !facts.leavesSleepers() {
			by = Kprobe
		}
		hook := hookFunction(facts, by, f, trampolines, kprobes)
		switch {
		case by == backend:
		case backend == Trampoline:
			hook = Hook{Name: f.name, Note: whySleepers + "; not seen: " + f.why}
		case backend == Auto && hook.Backend == Kprobe:
			hook.Note = whySleepers
		}
		hook.Accepts = true
		hooks = append(hooks, hook)
	}
	return hooks
}

// whySleepers is why a trampoline will not do for a function that sleeps.
const whySleepers = "this kernel frees a trampoline even if a task sleeps in what it called"

// sleeperFunctions came with "bpf: Fix fexit trampoline" (5.12, and some stable
// updates before), which keeps the exit's trampoline until the last task left it.
func sleeperFunctions() []string { return []string{"__bpf_tramp_exit", "__bpf_tramp_image_release"} }

// leavesSleepers tells whether a trampoline at the exit of a function that sleeps can
// be taken away safely.
func (f *Facts) leavesSleepers() bool { return slices.ContainsFunc(sleeperFunctions(), f.has) }
