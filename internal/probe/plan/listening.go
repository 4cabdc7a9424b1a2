// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"github.com/synspy/synspy/internal/probe/facts"
	"slices"
)

// listenHooks tell of listeners that open and close: by their functions, where trampolines see the listen path, or by the
// tracepoint. With tracepoints alone, the program that sees handshakes succeed does it.
func listenHooks(here *facts.Facts, plan, backend string) []Hook {
	if plan == facts.Tracepoint {
		return nil
	}
	if programs, typed := listenPrograms(here); typed && plan != facts.Kprobe &&
		backend != facts.Kprobe {
		err := here.Refusal(facts.ListenFunction, facts.Trampoline)
		if err == nil {
			return []Hook{{Name: facts.ListenFunction, Backend: facts.Trampoline,
				Programs: programs}}
		}
		instead := listenTracepoint(here)
		if instead.Note == "" {
			instead.Note = facts.ListenFunction + " refused: " + err.Error()
		}
		return []Hook{instead}
	}
	return []Hook{listenTracepoint(here)}
}

// listenPrograms are those of listenFunction; false where this kernel's types lack a function.
func listenPrograms(here *facts.Facts) ([]string, bool) {
	programs := []string{"fentry_inet_csk_listen_stop"}
	if here.Functions[facts.QueueFunction] == 2 { // before, it was told the TCP socket alone, or there was none
		programs = append(programs, "fentry_"+facts.QueueFunction)
	}
	programs = append(programs, "fentry_"+facts.ListenFunction, "fexit_"+facts.ListenFunction)
	return programs, !slices.ContainsFunc(facts.ListenFunctions()[:2],
		func(name string) bool { return here.Functions[name] == 0 })
}

func listenTracepoint(here *facts.Facts) Hook {
	hook := Hook{Name: facts.ListenHook}
	_, exists := here.Tracepoints["inet_sock_set_state"]
	switch err := here.Refusal(facts.ListenHook, facts.Tracepoint); {
	case !exists:
		hook.Note = "not in the kernel's type information; listeners that open later are seen at their first drop only"
	case err != nil:
		hook.Note = "refused: " + err.Error() +
			"; listeners that open later are seen at their first drop only"
	default:
		hook.Backend, hook.Programs = facts.Tracepoint, []string{"tp_btf_listen"}
	}
	return hook
}

// seesListeners reports whether listeners are told of that open and close.
func (p *Plan) seesListeners() bool {
	return p.Backend == facts.Tracepoint || p.Attaches(facts.ListenHook) ||
		p.Attaches(facts.ListenFunction)
}
