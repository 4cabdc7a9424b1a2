// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// TestWithoutFunction takes each function of the listen path out of each kernel: a
// core one ends its backend, and without another one the entries are hooked, so that
// what moves there is told as unattributed, never as another packet's.
func TestWithoutFunction(t *testing.T) {
	for _, name := range probetest.Kernels(t) {
		for _, backend := range []string{facts.Auto, facts.Trampoline, facts.Kprobe} {
			for _, f := range facts.ListenPath() {
				t.Run(name+"/"+backend+"/"+f.Name, func(t *testing.T) {
					whole, err := plan.Make(probetest.KernelFacts(t, name),
						backend)
					if err != nil {
						return // not a backend of this kernel
					}
					here := probetest.KernelFacts(t, name)
					delete(here.Functions, f.Name)
					delete(here.Code, f.Name)
					planned, err := plan.Make(here, backend)
					wantWithout(t, whole, planned, err, f, backend)

					typed := probetest.KernelFacts(t, name)
					delete(typed.Functions,
						f.Name) // the kernel's symbols name it all the same
					if planned, err = plan.Make(typed, backend); err != nil ||
						backend == facts.Trampoline ||
						!whole.Attaches(f.Name) {
						return
					}
					if hook := hookOf(planned,
						f.Name); hook.Backend != facts.Kprobe &&
						planned.Backend != facts.Tracepoint {
						t.Errorf("known by symbol only: %+v", hook)
					}
				})
			}
		}
	}
}

func wantWithout(t *testing.T, whole, plan plan.Plan, err error, f facts.Function, backend string) {
	t.Helper()
	switch {
	case f.Core && backend != facts.Auto:
		if !errors.Is(err, facts.ErrCannotTrace) || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("error %v, want one that names %s", err, f.Name)
		}
		return
	case f.Core && errors.Is(err, facts.ErrSplit): // 5.10 of arm64 has no other backend
		return
	case err != nil:
		t.Fatal(err)
	case f.Core:
		if plan.Backend != facts.Tracepoint {
			t.Errorf("backend %s", plan.Backend)
		}
		return
	case !whole.Lists(f.Name): // a kernel without MPTCP
		return
	}
	hook := hookOf(plan, f.Name)
	if hook.Backend != "" || !strings.Contains(hook.Note, "not seen: "+f.Why) ||
		len(hook.Blind) == 0 {
		t.Errorf("%+v", hook)
	}
	for _, b := range hook.Blind {
		if b.Shows != event.ShowsUnattributed || b.Part != f.Part {
			t.Errorf("blind: %+v", b)
		}
	}
	for _, other := range facts.ListenPath() {
		h := hookOf(plan, other.Name)
		if h.Backend == "" {
			continue
		}
		if want := map[string]string{facts.Trampoline: "fentry_",
			facts.Kprobe: "kprobe_"}[h.Backend]; !slices.Contains(h.Programs, want+h.Name) {
			t.Errorf("%s: no entry among %v", h.Name, h.Programs)
		}
	}
}

func hookOf(planned plan.Plan, name string) plan.Hook {
	for _, hook := range planned.Hooks {
		if hook.Name == name {
			return hook
		}
	}
	return plan.Hook{}
}

// TestRefusedHooks refuses each hook in turn, on each kernel: by trampoline, a kprobe
// takes its place; by all means, the plan goes on without it and says so. A core hook
// takes its backend along.
func TestRefusedHooks(t *testing.T) {
	for _, name := range probetest.Kernels(t) {
		for _, backend := range facts.Backends() {
			whole, err := plan.Make(probetest.KernelFacts(t, name), backend)
			if err != nil {
				continue
			}
			for _, hook := range whole.Hooks {
				if hook.Backend == "" {
					continue
				}
				t.Run(name+"/"+backend+"/"+hook.Name, func(t *testing.T) {
					for _, refused := range []string{hook.Backend,
						""} { // that way, or any way
						plan, err := planAgainst(t, name, backend,
							hook.Name, refused)
						wantRefused(t, hook, refused, backend, plan, err)
					}
				})
			}
		}
	}
}

// planAgainst plans as Open does where one hook is refused when it is attached.
func planAgainst(t *testing.T, kernel, backend, hook, refused string) (plan.Plan, error) {
	t.Helper()
	facts := probetest.KernelFacts(t, kernel)
	one := func(h *plan.Hook, _ string, _ *ebpf.Program) (link.Link, error) {
		if h.Name == hook && (refused == "" || refused == h.Backend) {
			return nil, probetest.ErrRefused
		}
		return probetest.FakeLink{}, nil
	}
	for range 5 {
		plan, err := plan.Make(facts, backend)
		if err != nil {
			return plan, err
		}
		if _, err = Attach(&ebpf.Collection{}, &plan, one); err == nil {
			return plan, nil
		}
		if !facts.Refused(plan.Backend, err) {
			return plan, err
		}
	}
	t.Fatal("no end of plans")
	return plan.Plan{}, nil
}

func wantRefused(t *testing.T, hook plan.Hook, refused, backend string, planned plan.Plan,
	err error) {
	t.Helper()
	if hook.Core {
		switch got := hookOf(planned, hook.Name); {
		case err != nil && (!errors.Is(err, facts.ErrCannotTrace) ||
			!errors.Is(err, probetest.ErrRefused)):
			t.Error(err)
		case err == nil && (backend != facts.Auto || refused == "" && got.Backend != ""):
			t.Errorf("%s: %+v", planned.Backend, got)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if hook.Name == facts.ListenFunction { // a tracepoint tells the same
		if got := hookOf(planned, facts.ListenHook); got.Backend != facts.Tracepoint ||
			!strings.Contains(got.Note, probetest.ErrRefused.Error()) {
			t.Errorf("refused: %+v", got)
		}
		return
	}
	got := hookOf(planned, hook.Name)
	if refused == facts.Trampoline && backend == facts.Auto {
		if got.Backend != facts.Kprobe ||
			!strings.Contains(got.Note, probetest.ErrRefused.Error()) {
			t.Errorf("refused by trampoline: %+v", got)
		}
		return
	}
	if got.Backend != "" || !strings.Contains(got.Note, probetest.ErrRefused.Error()) {
		t.Errorf("refused: %+v", got)
	}
	var blind []event.Blind
	for i := range planned.Hooks {
		blind = append(blind, planned.Hooks[i].Blind...)
	}
	if len(blind) <= 2 && hook.Name != "iter/task_file" { // besides what never is told
		t.Errorf("what is not seen for want of %s is not said: %v", hook.Name, blind)
	}
}

// TestNeededTypes: every relocation of every program can be told by its name in C.
func TestNeededTypes(t *testing.T) {
	spec, seen := loadSpec(t), make(map[string]bool)
	for _, program := range spec.Programs {
		for i := range program.Instructions {
			relocation := btf.CORERelocationMetadata(&program.Instructions[i])
			if relocation == nil {
				continue
			}
			name := NeededType(spec.Types, relocation)
			seen[name] = true
			if !strings.HasPrefix(name, "struct ") ||
				strings.ContainsAny(name, "[](): ") &&
					strings.Count(name, " ") > 1 ||
				strings.Contains(name, "___") {
				t.Errorf("%s: %q", relocation, name)
			}
		}
	}
	for _, name := range []string{"struct sock.sk_ack_backlog",
		"struct sock.__sk_common.skc_net.net", "struct net.ipv4.tcp_death_row.hashinfo",
		"struct linux_mib", "struct sock_cgroup_data.val", "struct request_sock.rsk_timer"} {
		if !seen[name] {
			t.Errorf("nothing needs %s", name)
		}
	}
}

// TestProgramsExist: every program a plan can name is in the object.
func TestProgramsExist(t *testing.T) {
	here := probetest.KernelFacts(t, "6.12")
	for _, backend := range []string{facts.Trampoline, facts.Kprobe, facts.Tracepoint} {
		p, err := plan.Make(here, backend)
		if err != nil {
			t.Fatal(err)
		}
		spec := loadSpec(t)
		for _, hook := range p.Hooks {
			for _, name := range hook.Programs {
				if program := spec.Programs[name]; program == nil {
					t.Errorf("%s: no program %s", backend, name)
				} else if program.SectionName != SectionOf(name) {
					t.Errorf("%s is in section %s, not %s", name,
						program.SectionName, SectionOf(name))
				}
			}
		}
	}
}

func loadSpec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := bpf.LoadSynspy()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}
