// SPDX-License-Identifier: Apache-2.0

package probe

import "slices"

// listenHook is the second use of a tracepoint: who opens and closes listeners.
const listenHook = "inet_sock_set_state (listen)"

// listenFunction is the hook that tells the same by functions. A tracepoint is passed by every connection, some ten times.
const listenFunction = "inet_csk_listen_start"

// queueFunction is where MPTCP closes what was queued, before its listener stops.
const queueFunction = "mptcp_subflow_queue_clean"

func listenFunctions() []string {
	return []string{listenFunction, "inet_csk_listen_stop", queueFunction}
}

// listenHooks tell of listeners that open and close: by their functions, where trampolines see the listen path, or by the
// tracepoint. With tracepoints alone, the program that sees handshakes succeed does it.
func listenHooks(facts *Facts, plan, backend string) []Hook {
	if plan == Tracepoint {
		return nil
	}
	if programs, typed := listenPrograms(facts); typed && plan != Kprobe && backend != Kprobe {
		err := facts.refusal(listenFunction, Trampoline)
		if err == nil {
			return []Hook{{Name: listenFunction, Backend: Trampoline, Programs: programs}}
		}
		instead := listenTracepoint(facts)
		if instead.Note == "" {
			instead.Note = listenFunction + " refused: " + err.Error()
		}
		return []Hook{instead}
	}
	return []Hook{listenTracepoint(facts)}
}

// listenPrograms are those of listenFunction; false where this kernel's types lack a function.
func listenPrograms(facts *Facts) ([]string, bool) {
	programs := []string{"fentry_inet_csk_listen_stop"}
	if facts.Functions[queueFunction] == 2 { // before, it was told the TCP socket alone, or there was none
		programs = append(programs, "fentry_"+queueFunction)
	}
	programs = append(programs, "fentry_"+listenFunction, "fexit_"+listenFunction)
	return programs, !slices.ContainsFunc(listenFunctions()[:2], func(name string) bool { return facts.Functions[name] == 0 })
}

func listenTracepoint(facts *Facts) Hook {
	hook := Hook{Name: listenHook}
	_, exists := facts.Tracepoints["inet_sock_set_state"]
	switch err := facts.refusal(listenHook, Tracepoint); {
	case !exists:
		hook.Note = "not in the kernel's type information; listeners that open later are seen at their first drop only"
	case err != nil:
		hook.Note = "refused: " + err.Error() + "; listeners that open later are seen at their first drop only"
	default:
		hook.Backend, hook.Programs = Tracepoint, []string{"tp_btf_listen"}
	}
	return hook
}

// seesListeners tells whether listeners are told of that open and close.
func (p *Plan) seesListeners() bool {
	return p.Backend == Tracepoint || p.hooks(listenHook) || p.hooks(listenFunction)
}
