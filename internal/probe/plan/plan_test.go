// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// debian612 is what Debian's 6.12 cloud kernel for amd64 tells of itself.
func debian612() *facts.Facts {
	return &facts.Facts{
		Release: "6.12.107+deb13-cloud-amd64", Arch: "amd64", CPUs: []int{0,
			1}, RdonlyCast: true,
		Functions: map[string]int{"tcp_v4_conn_request": 2, "tcp_v6_conn_request": 2,
			"subflow_v4_conn_request": 2, "subflow_v6_conn_request": 2, "tcp_check_req": 5, "cookie_v4_check": 2,
			"cookie_v6_check": 2, "tcp_req_err": 3, "mptcp_get_options": 2, "bpf_iter_task_file": 4, "bpf_sock_from_file": 1},
		Tracepoints: map[string]int{"consume_skb": 2, "kfree_skb": 4,
			"inet_sock_set_state": 3},
		Code: map[string][]kernel.Range{"tcp_v4_rcv": {{Start: 1, End: 2}}},
	}
}

func TestPlans(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*facts.Facts)
		backend string
		want    string // backend of the plan; empty for an error
		hooks   map[string]string
		note    string // some hook's note holds this
	}{
		{name: "everything", backend: facts.Auto, want: facts.Trampoline,
			hooks: map[string]string{"tcp_check_req": facts.Trampoline,
				"iter/task_file":               facts.Iterator,
				"inet_sock_set_state (listen)": facts.Tracepoint}},
		{name: "a seventh argument", backend: facts.Auto, want: "trampoline+kprobe",
			change: func(f *facts.Facts) { f.Functions["tcp_check_req"] = 7 },
			hooks: map[string]string{"tcp_check_req": facts.Kprobe,
				"tcp_v4_conn_request": facts.Trampoline},
			note: "refuses 7 arguments"},
		{name: "a seventh argument, no kprobes", backend: facts.Trampoline,
			change: func(f *facts.Facts) { f.Functions["tcp_check_req"] = 7 }},
		{name: "trampolines refused", backend: facts.Auto, want: facts.Kprobe,
			change: func(f *facts.Facts) {
				f.Trampoline = facts.Support{Known: true,
					Err: probetest.ErrRefused}
			}, note: probetest.ErrRefused.Error()},
		{name: "all but tracepoints refused", backend: facts.Auto, want: facts.Tracepoint,
			change: func(f *facts.Facts) {
				f.Trampoline, f.Kprobe = facts.Support{Known: true,
					Err: probetest.ErrRefused}, facts.Support{Known: true, Err: probetest.ErrRefused}
			},
			hooks: map[string]string{"consume_skb": facts.Tracepoint,
				"kfree_skb": facts.Tracepoint}},
		{name: "everything refused", backend: facts.Auto,
			change: func(f *facts.Facts) {
				f.Trampoline, f.Kprobe, f.Tracepoint = facts.Support{Known: true,
					Err: probetest.ErrRefused}, facts.Support{Known: true, Err: probetest.ErrRefused}, facts.Support{Known: true, Err: probetest.ErrRefused}
			}},
		{name: "no IPv6 and no MPTCP", backend: facts.Auto, want: facts.Trampoline,
			change: func(f *facts.Facts) {
				for _, name := range []string{"tcp_v6_conn_request",
					"cookie_v6_check", "subflow_v4_conn_request", "subflow_v6_conn_request"} {
					delete(f.Functions, name)
				}
			},
			hooks: map[string]string{"tcp_v6_conn_request": "",
				"cookie_v6_check": ""}, note: "not in this kernel"},
		{name: "a core function inlined", backend: facts.Auto, want: facts.Tracepoint,
			change: func(f *facts.Facts) { delete(f.Functions, "tcp_check_req") }},
		{name: "forced kprobes", backend: facts.Kprobe, want: facts.Kprobe},
		{name: "forced kprobes without them", backend: facts.Kprobe,
			change: func(f *facts.Facts) {
				f.Kprobe = facts.Support{Known: true,
					Err: probetest.ErrRefused}
			}},
		{name: "forced tracepoints", backend: facts.Tracepoint, want: facts.Tracepoint},
		{name: "tracepoints without symbols", backend: facts.Tracepoint,
			change: func(f *facts.Facts) {
				f.Code, f.CodeErr = nil,
					kernel.ErrSymbolsHidden
			}},
		{name: "tracepoints of 6.1", backend: facts.Tracepoint, want: facts.Tracepoint,
			change: func(f *facts.Facts) {
				f.Tracepoints["consume_skb"],
					f.Tracepoints["kfree_skb"] = 1, 3
			},
			note: "does not tell the place"},
		{name: "no file iterator", backend: facts.Auto, want: facts.Trampoline,
			change: func(f *facts.Facts) { delete(f.Functions, "bpf_iter_task_file") },
			hooks:  map[string]string{"iter/task_file": ""}, note: "read from /proc"},
		{name: "no type information", backend: facts.Auto,
			change: func(f *facts.Facts) { f.BTF = facts.ErrNoBTF }},
		{name: "no counters", backend: facts.Auto,
			change: func(f *facts.Facts) { f.MIBErr = probetest.ErrRefused }},
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
					t.Errorf("%s: backend %q with programs %v", hook.Name,
						hook.Backend, hook.Programs)
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
	for backend, want := range map[string]string{facts.Auto: facts.Kprobe, facts.Trampoline: "",
		facts.Kprobe: facts.Kprobe} {
		here := probetest.KernelFacts(t, "5.10")
		for _, name := range facts.SleeperFunctions() {
			delete(here.Functions, name)
			delete(here.Code, name)
		}
		plan, err := Make(here, backend)
		if err != nil {
			t.Fatal(err)
		}
		hook := hookOf(plan, facts.AcceptFunction)
		if hook.Backend != want || (backend != facts.Kprobe) != strings.Contains(hook.Note,
			whySleepers) {
			t.Errorf("%s: %+v", backend, hook)
		}
		if plan.Backend != backend && backend != facts.Auto ||
			hookOf(plan, facts.EnqueueFunction).Backend != plan.Backend {
			t.Errorf("%s: others were taken along: %+v", backend, plan.Hooks)
		}
	}
}

// TestRefusalsEnd: a refusal is booked once and then something else is tried.
func TestRefusalsEnd(t *testing.T) {
	here := debian612()
	for tries := 0; ; tries++ {
		plan, err := Make(here, facts.Auto)
		if err != nil {
			if tries != 3 {
				t.Errorf("gave up after %d refusals, want 3: %v", tries, err)
			}
			return
		}
		if !here.Refused(plan.Backend, probetest.ErrRefused) || tries > 5 {
			t.Fatalf("refusal %d of %s was not booked", tries, plan.Backend)
		}
	}
}

func hookOf(plan Plan, name string) Hook {
	for _, hook := range plan.Hooks {
		if hook.Name == name {
			return hook
		}
	}
	return Hook{}
}
