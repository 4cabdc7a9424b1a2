// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/kernel"
)

// debian612 is what Debian's 6.12 cloud kernel for amd64 tells of itself.
func debian612() *Facts {
	return &Facts{
		Release: "6.12.107+deb13-cloud-amd64", Arch: "amd64", CPUs: []int{0, 1}, RdonlyCast: true,
		Functions: map[string]int{"tcp_v4_conn_request": 2, "tcp_v6_conn_request": 2,
			"subflow_v4_conn_request": 2, "subflow_v6_conn_request": 2, "tcp_check_req": 5, "cookie_v4_check": 2,
			"cookie_v6_check": 2, "tcp_req_err": 3, "mptcp_get_options": 2, "bpf_iter_task_file": 4, "bpf_sock_from_file": 1},
		Tracepoints: map[string]int{"consume_skb": 2, "kfree_skb": 4, "inet_sock_set_state": 3},
		Code:        map[string][]kernel.Range{"tcp_v4_rcv": {{Start: 1, End: 2}}},
	}
}

var errRefused = errors.New("operation not permitted")

func TestPlans(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*Facts)
		backend string
		want    string // backend of the plan; empty for an error
		hooks   map[string]string
		note    string // some hook's note holds this
	}{
		{name: "everything", backend: Auto, want: Trampoline,
			hooks: map[string]string{"tcp_check_req": Trampoline, "iter/task_file": iterator,
				"inet_sock_set_state (listen)": Tracepoint}},
		{name: "a seventh argument", backend: Auto, want: "trampoline+kprobe",
			change: func(f *Facts) { f.Functions["tcp_check_req"] = 7 },
			hooks:  map[string]string{"tcp_check_req": Kprobe, "tcp_v4_conn_request": Trampoline},
			note:   "refuses 7 arguments"},
		{name: "a seventh argument, no kprobes", backend: Trampoline,
			change: func(f *Facts) { f.Functions["tcp_check_req"] = 7 }},
		{name: "trampolines refused", backend: Auto, want: Kprobe,
			change: func(f *Facts) { f.Trampoline = Support{true, errRefused} }, note: errRefused.Error()},
		{name: "all but tracepoints refused", backend: Auto, want: Tracepoint,
			change: func(f *Facts) { f.Trampoline, f.Kprobe = Support{true, errRefused}, Support{true, errRefused} },
			hooks:  map[string]string{"consume_skb": Tracepoint, "kfree_skb": Tracepoint}},
		{name: "everything refused", backend: Auto,
			change: func(f *Facts) {
				f.Trampoline, f.Kprobe, f.Tracepoint = Support{true, errRefused}, Support{true, errRefused}, Support{true, errRefused}
			}},
		{name: "no IPv6 and no MPTCP", backend: Auto, want: Trampoline,
			change: func(f *Facts) {
				for _, name := range []string{"tcp_v6_conn_request", "cookie_v6_check", "subflow_v4_conn_request", "subflow_v6_conn_request"} {
					delete(f.Functions, name)
				}
			},
			hooks: map[string]string{"tcp_v6_conn_request": "", "cookie_v6_check": ""}, note: "not in this kernel"},
		{name: "a core function inlined", backend: Auto, want: Tracepoint,
			change: func(f *Facts) { delete(f.Functions, "tcp_check_req") }},
		{name: "forced kprobes", backend: Kprobe, want: Kprobe},
		{name: "forced kprobes without them", backend: Kprobe,
			change: func(f *Facts) { f.Kprobe = Support{true, errRefused} }},
		{name: "forced tracepoints", backend: Tracepoint, want: Tracepoint},
		{name: "tracepoints without symbols", backend: Tracepoint,
			change: func(f *Facts) { f.Code, f.CodeErr = nil, kernel.ErrSymbolsHidden }},
		{name: "tracepoints of 6.1", backend: Tracepoint, want: Tracepoint,
			change: func(f *Facts) { f.Tracepoints["consume_skb"], f.Tracepoints["kfree_skb"] = 1, 3 },
			note:   "does not tell the place"},
		{name: "no file iterator", backend: Auto, want: Trampoline,
			change: func(f *Facts) { delete(f.Functions, "bpf_iter_task_file") },
			hooks:  map[string]string{"iter/task_file": ""}, note: "read from /proc"},
		{name: "no type information", backend: Auto, change: func(f *Facts) { f.BTF = ErrNoBTF }},
		{name: "no counters", backend: Auto, change: func(f *Facts) { f.MIBErr = errRefused }},
	} {
		t.Run(test.name, func(t *testing.T) {
			facts := debian612()
			if test.change != nil {
				test.change(facts)
			}
			plan, err := Make(facts, test.backend)
			if test.want == "" {
				if err == nil {
					t.Fatalf("want an error, got %+v", plan)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if plan.Backend != test.want {
				t.Errorf("backend %q, want %q", plan.Backend, test.want)
			}
			notes := ""
			have := make(map[string]Hook)
			for _, hook := range plan.Hooks {
				have[hook.Name] = hook
				notes += hook.Note + "\n"
				if (hook.Backend == "") != (len(hook.Programs) == 0) {
					t.Errorf("%s: backend %q with programs %v", hook.Name, hook.Backend, hook.Programs)
				}
			}
			for name, backend := range test.hooks {
				if hook, ok := have[name]; !ok || hook.Backend != backend {
					t.Errorf("%s: %+v, want backend %q", name, hook, backend)
				}
			}
			if !strings.Contains(notes, test.note) {
				t.Errorf("no note says %q:\n%s", test.note, notes)
			}
		})
	}
}

// TestSleepers: where a trampoline is freed below a task that sleeps in accept(), a
// kprobe takes its place, or nothing does.
func TestSleepers(t *testing.T) {
	for backend, want := range map[string]string{Auto: Kprobe, Trampoline: "", Kprobe: Kprobe} {
		facts := kernelFacts(t, "5.10")
		for _, name := range sleeperFunctions() {
			delete(facts.Functions, name)
			delete(facts.Code, name)
		}
		plan, err := Make(facts, backend)
		if err != nil {
			t.Fatal(err)
		}
		hook := hookOf(plan, acceptFunction)
		if hook.Backend != want || (backend != Kprobe) != strings.Contains(hook.Note, whySleepers) {
			t.Errorf("%s: %+v", backend, hook)
		}
		if plan.Backend != backend && backend != Auto || hookOf(plan, enqueueFunction).Backend != plan.Backend {
			t.Errorf("%s: others were taken along: %+v", backend, plan.Hooks)
		}
	}
}

// TestProgramsExist: every program a plan can name is in the object.
func TestProgramsExist(t *testing.T) {
	facts := debian612()
	for _, backend := range []string{Trampoline, Kprobe, Tracepoint} {
		plan, err := Make(facts, backend)
		if err != nil {
			t.Fatal(err)
		}
		spec := loadSpec(t)
		for _, hook := range plan.Hooks {
			for _, name := range hook.Programs {
				if program := spec.Programs[name]; program == nil {
					t.Errorf("%s: no program %s", backend, name)
				} else if program.SectionName != sectionOf(name) {
					t.Errorf("%s is in section %s, not %s", name, program.SectionName, sectionOf(name))
				}
			}
		}
	}
}

// TestRefusalsEnd: a refusal is booked once and then something else is tried.
func TestRefusalsEnd(t *testing.T) {
	facts := debian612()
	for tries := 0; ; tries++ {
		plan, err := Make(facts, Auto)
		if err != nil {
			if tries != 3 {
				t.Errorf("gave up after %d refusals, want 3: %v", tries, err)
			}
			return
		}
		if !facts.refused(plan.Backend, errRefused) || tries > 5 {
			t.Fatalf("refusal %d of %s was not booked", tries, plan.Backend)
		}
	}
}
