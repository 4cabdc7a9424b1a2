// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// The backends. Auto is the best that this kernel allows, hook by hook.
const (
	Auto       = "auto"
	Trampoline = "trampoline"
	Kprobe     = "kprobe"
	Tracepoint = "tracepoint"
	iterator   = "iterator"
)

// Backends lists what --backend takes.
func Backends() []string { return []string{Auto, Trampoline, Kprobe, Tracepoint} }

// ErrCannotTrace says that no backend can see the listen path on this kernel.
var ErrCannotTrace = errors.New("this kernel lets no hook see the listen path")

// function is one of the listen path that is hooked.
type function struct {
	name string
	core bool       // without it the listen path is not seen
	why  string     // what is not seen without it
	part string     // which of its causes' deaths those are; empty: all
	with string     // a function of the same subsystem; without both the kernel has none
	at   event.Need // the branches whose counters are found moved at its end; 0: none
}

// listenPath holds every function in which the closed list's counters move.
// Which one calls tcp_v4_syn_recv_sock does not matter: it runs inside.
func listenPath() []function {
	return []function{
		{"tcp_v4_conn_request", true, "SYNs over IPv4", "IPv4", "", event.AtSyn},
		{"tcp_v6_conn_request", false, "SYNs over IPv6", "IPv6", "", event.AtSyn},
		{"subflow_v4_conn_request", false,
			"SYNs to MPTCP listeners over IPv4", "MPTCP over IPv4", mptcp, event.AtSyn},
		{"subflow_v6_conn_request", false,
			"SYNs to MPTCP listeners over IPv6", "MPTCP over IPv6", mptcp, event.AtSyn},
		{"tcp_check_req", true, "handshake ACKs", "", "", event.AtAck},
		{"cookie_v4_check", false,
			"ACKs of SYN cookies over IPv4", "SYN cookies over IPv4", "", event.AtCookie},
		{"cookie_v6_check", false,
			"ACKs of SYN cookies over IPv6", "SYN cookies over IPv6", "", event.AtCookie},
		{"tcp_req_err", false, "ICMP errors to half-open handshakes", "", "", event.AtICMP},
	}
}

// mptcp is a function that every kernel with MPTCP has, and tells of in its types.
const mptcp = "mptcp_get_options"

// freeEvents are the tracepoints that see the same from outside.
func freeEvents() []function {
	return []function{
		{"consume_skb", true, "SYNs", "", "", 0},
		{"kfree_skb", true, "handshake ACKs", "", "", 0},
		{"inet_sock_set_state", true, "handshakes that succeed", "", "", 0},
	}
}

// Functions whose frees settle a packet, by what the packet was.
func synFreers() []string { return []string{"tcp_rcv_state_process"} }
func ackFreers() []string {
	return []string{"tcp_v4_rcv", "tcp_v6_rcv", "tcp_v4_do_rcv", "tcp_v6_do_rcv", "cookie_v4_check",
		"cookie_v6_check", "tcp_rcv_state_process"}
}
func icmpFreers() []string { return []string{"icmp_rcv", "icmpv6_rcv"} }

// sockFromFile is a helper of iterators: 5.11.
const sockFromFile = "bpf_sock_from_file"

// placedFunctions lists the functions whose code addresses are needed.
func placedFunctions() []string {
	names := append(append(synFreers(), icmpFreers()...), requestTimer, rejectFunction)
	for name := range reasonsOfFunctions() {
		names = append(names, name)
	}
	names = append(names, sleeperFunctions()...)
	return append(append(names, namesOf(listenPath(), deaths(), acceptSide())...), "kfree_skb")
}

func hookedFunctions() []string {
	names := append(namesOf(listenPath(), deaths(), acceptSide()), append(sleeperFunctions(), listenFunctions()...)...)
	return append(names, mptcp, "bpf_iter_task_file", sockFromFile)
}

func hookedTracepoints() []string {
	return append(append(namesOf(freeEvents()), timerEvents()...), goneEvent, AnswerAgain, "tcp_send_reset", answerEvent)
}

func namesOf(lists ...[]function) []string {
	var names []string
	for _, f := range slices.Concat(lists...) {
		names = append(names, f.name)
	}
	return names
}

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
	return slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.Name == name && h.Late != "" })
}

// hooked reports whether the plan attaches anything there at the start.
func (h *Hook) hooked() bool { return h.Backend != "" && len(h.Programs) > 0 }

// all lists its programs, with the one that comes later.
func (h *Hook) all() []string {
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
func Make(facts *Facts, backend string) (Plan, error) {
	if facts.BTF != nil {
		return Plan{}, facts.BTF
	}
	if facts.MIBErr != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrCannotTrace, facts.MIBErr)
	}
	facts.readCode()
	plan, err := packetHooks(facts, backend)
	if err != nil {
		return Plan{}, err
	}
	plan.Hooks = append(plan.Hooks, deathHooks(facts, plan.Backend, backend)...)
	plan.Hooks = append(plan.Hooks, acceptHooks(facts, plan.Backend, backend)...)
	plan.Hooks = append(plan.Hooks, ownerHooks(facts, plan.Backend, backend)...)
	plan.findBlind(facts)
	return plan, nil
}

// hooks tells whether the plan hooks all of these.
func (p *Plan) hooks(names ...string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.Name == name && h.hooked() }) {
			return false
		}
	}
	return true
}

// lists tells whether the plan has a line for it, hooked or not.
func (p *Plan) lists(name string) bool {
	return slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.Name == name })
}

// packetHooks chooses between the listen path's own functions and, where those
// cannot be hooked, the tracepoints that free its packets.
func packetHooks(facts *Facts, backend string) (Plan, error) {
	var pathErr error
	if backend != Tracepoint {
		var hooks []Hook
		if hooks, pathErr = pathHooks(facts, backend); pathErr == nil {
			return Plan{Backend: backendOf(hooks), Hooks: hooks}, nil
		}
		if backend != Auto {
			return Plan{}, pathErr
		}
	}
	hooks, err := eventHooks(facts)
	if err != nil {
		return Plan{}, errors.Join(err, pathErr)
	}
	return Plan{Backend: Tracepoint, Hooks: hooks}, nil
}

// pathHooks hooks the listen path's functions at their exits. Counters that move
// between two exits moved in the function that exits, if all are hooked; where one
// is not, entries are hooked too, so that its movements are no other packet's.
func pathHooks(facts *Facts, backend string) ([]Hook, error) {
	var hooks []Hook
	for _, f := range listenPath() {
		if f.with != "" && !facts.has(f.with) && !facts.has(f.name) {
			continue // nor anything to see
		}
		programs := []string{"fexit_" + f.name}
		if f.name == "tcp_req_err" { // frees what its exit would have to read
			programs = []string{"fentry_" + f.name, "fexit_" + f.name}
		}
		hook := hookFunction(facts, backend, f, programs, []string{"kretprobe_" + f.name, "kprobe_" + f.name})
		if f.core && hook.Backend == "" {
			return nil, errors.Join(fmt.Errorf("%w: %s: %s", ErrCannotTrace, f.name, hook.Note),
				facts.Trampoline.Err, facts.Kprobe.Err)
		}
		hooks = append(hooks, hook)
	}
	if slices.ContainsFunc(hooks, func(h Hook) bool { return h.Backend == "" }) {
		for i := range hooks {
			if h := &hooks[i]; h.Backend == Trampoline && len(h.Programs) == 1 {
				h.Programs = append([]string{"fentry_" + h.Name}, h.Programs...)
			}
		}
	}
	return hooks, nil
}

// has tells whether the kernel is known to have the function. Some kernels' type
// information leaves static ones out.
func (f *Facts) has(function string) bool {
	_, typed := f.Functions[function]
	return typed || len(f.Code[function]) > 0
}

// hookFunction hooks one function by a trampoline or, where that is refused, kprobes.
func hookFunction(facts *Facts, backend string, f function, trampolines, kprobes []string) Hook {
	hook := Hook{Name: f.name, Core: f.core}
	args, typed := facts.Functions[f.name]
	trampolineErr, kprobeErr := facts.refusal(f.name, Trampoline), facts.refusal(f.name, Kprobe)
	switch {
	case !facts.has(f.name):
		hook.Note = "not in this kernel; not seen: " + f.why
	case typed && trampolineErr == nil && args <= maxTrampolineArgs && backend != Kprobe:
		hook.Backend, hook.Programs = Trampoline, trampolines
	case kprobeErr == nil && backend != Trampoline:
		hook.Backend, hook.Programs = Kprobe, kprobes
		switch {
		case backend == Kprobe:
		case !typed:
			hook.Note = "not in the kernel's type information, which a trampoline needs"
		case args > maxTrampolineArgs:
			hook.Note = fmt.Sprintf("a trampoline refuses %d arguments", args)
		default:
			hook.Note = trampolineErr.Error()
		}
	case args > maxTrampolineArgs:
		hook.Note = fmt.Sprintf("a trampoline refuses %d arguments; not seen: %s", args, f.why)
	default:
		hook.Note = refusedNote(f.why, facts.refusedHooks[attempt{f.name, Trampoline}], facts.refusedHooks[attempt{f.name, Kprobe}])
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
func eventHooks(facts *Facts) ([]Hook, error) {
	var hooks []Hook
	for _, f := range freeEvents() {
		if _, exists := facts.Tracepoints[f.name]; !exists {
			return nil, fmt.Errorf("%w: tracepoint %s is %w", ErrCannotTrace, f.name, ErrNoType)
		}
		if !facts.Tracepoint.Maybe() {
			return nil, fmt.Errorf("%w: %w", ErrCannotTrace, facts.Tracepoint.Err)
		}
		program := "tp_btf_" + f.name
		hook := Hook{Name: f.name, Backend: Tracepoint, Programs: []string{program, program + twin}, Core: f.core}
		if f.name == "inet_sock_set_state" {
			hook.Programs, hook.Late = []string{program}, program+twin
		}
		if f.name == "consume_skb" && facts.Tracepoints[f.name] < 2 {
			hook.Note = "does not tell the place (6.5 does): packets are told apart by their state"
		}
		if f.name == "kfree_skb" && len(facts.Code) == 0 {
			return nil, fmt.Errorf("%w: tracepoint kfree_skb needs kernel symbols: %w", ErrCannotTrace, facts.CodeErr)
		}
		if f.name == "kfree_skb" && facts.isSplit() {
			return nil, fmt.Errorf("%w: %w", ErrCannotTrace, errSplit)
		}
		hooks = append(hooks, hook)
	}
	return hooks, nil
}

// ownerHooks find who holds the listeners, whatever sees the packets.
func ownerHooks(facts *Facts, plan, backend string) []Hook {
	hooks := listenHooks(facts, plan, backend)
	files := Hook{Name: "iter/task_file"}
	const without = "holders are read from /proc instead, and the first drop in each namespace that listened before is not counted"
	_, iterates := facts.Functions["bpf_iter_task_file"]
	switch err := facts.refusal(files.Name, iterator); {
	case !iterates:
		files.Note = without
	case err != nil:
		files.Note = "refused: " + err.Error() + "; " + without
	default:
		files.Backend, files.Programs = iterator, []string{"iter_task_file"}
	}
	return append(hooks, files)
}

func backendOf(hooks []Hook) string {
	var trampoline, kprobe bool
	for _, hook := range hooks {
		trampoline = trampoline || hook.Backend == Trampoline
		kprobe = kprobe || hook.Backend == Kprobe
	}
	switch {
	case trampoline && kprobe:
		return Trampoline + "+" + Kprobe
	case kprobe:
		return Kprobe
	default:
		return Trampoline
	}
}
