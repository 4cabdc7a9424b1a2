// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/event"
)

// TestWithoutFunction takes each function of the listen path out of each kernel: a
// core one ends its backend, and without another one the entries are hooked, so that
// what moves there is told as unattributed, never as another packet's.
func TestWithoutFunction(t *testing.T) {
	for _, name := range kernels(t) {
		for _, backend := range []string{Auto, Trampoline, Kprobe} {
			for _, f := range listenPath() {
				t.Run(name+"/"+backend+"/"+f.name, func(t *testing.T) {
					whole, err := Make(kernelFacts(t, name), backend)
					if err != nil {
						return // not a backend of this kernel
					}
					facts := kernelFacts(t, name)
					delete(facts.Functions, f.name)
					delete(facts.Code, f.name)
					plan, err := Make(facts, backend)
					wantWithout(t, whole, plan, err, f, backend)

					typed := kernelFacts(t, name)
					delete(typed.Functions, f.name) // the kernel's symbols name it all the same
					if plan, err = Make(typed, backend); err != nil || backend == Trampoline || !whole.hooks(f.name) {
						return
					}
					if hook := hookOf(plan, f.name); hook.Backend != Kprobe && plan.Backend != Tracepoint {
						t.Errorf("known by symbol only: %+v", hook)
					}
				})
			}
		}
	}
}

func wantWithout(t *testing.T, whole, plan Plan, err error, f function, backend string) {
	t.Helper()
	switch {
	case f.core && backend != Auto:
		if !errors.Is(err, ErrCannotTrace) || !strings.Contains(err.Error(), f.name) {
			t.Errorf("error %v, want one that names %s", err, f.name)
		}
		return
	case f.core && errors.Is(err, errSplit): // 5.10 of arm64 has no other backend
		return
	case err != nil:
		t.Fatal(err)
	case f.core:
		if plan.Backend != Tracepoint {
			t.Errorf("backend %s", plan.Backend)
		}
		return
	case !whole.lists(f.name): // a kernel without MPTCP
		return
	}
	hook := hookOf(plan, f.name)
	if hook.Backend != "" || !strings.Contains(hook.Note, "not seen: "+f.why) || len(hook.Blind) == 0 {
		t.Errorf("%+v", hook)
	}
	for _, b := range hook.Blind {
		if b.Shows != event.ShowsUnattributed || b.Part != f.part {
			t.Errorf("blind: %+v", b)
		}
	}
	for _, other := range listenPath() {
		h := hookOf(plan, other.name)
		if h.Backend == "" {
			continue
		}
		if want := map[string]string{Trampoline: "fentry_", Kprobe: "kprobe_"}[h.Backend]; !slices.Contains(h.Programs, want+h.Name) {
			t.Errorf("%s: no entry among %v", h.Name, h.Programs)
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

// fakeLink is a hook that was not refused.
type fakeLink struct{ link.Link }

func (fakeLink) Close() error { return nil }

// TestRefusedHooks refuses each hook in turn, on each kernel: by trampoline, a kprobe
// takes its place; by all means, the plan goes on without it and says so. A core hook
// takes its backend along.
func TestRefusedHooks(t *testing.T) {
	for _, name := range kernels(t) {
		for _, backend := range Backends() {
			whole, err := Make(kernelFacts(t, name), backend)
			if err != nil {
				continue
			}
			for _, hook := range whole.Hooks {
				if hook.Backend == "" {
					continue
				}
				t.Run(name+"/"+backend+"/"+hook.Name, func(t *testing.T) {
					for _, refused := range []string{hook.Backend, ""} { // that way, or any way
						plan, err := planAgainst(t, name, backend, hook.Name, refused)
						wantRefused(t, hook, refused, backend, plan, err)
					}
				})
			}
		}
	}
}

// planAgainst plans as Open does where one hook is refused when it is attached.
func planAgainst(t *testing.T, kernel, backend, hook, refused string) (Plan, error) {
	t.Helper()
	facts := kernelFacts(t, kernel)
	one := func(h *Hook, _ string, _ *ebpf.Program) (link.Link, error) {
		if h.Name == hook && (refused == "" || refused == h.Backend) {
			return nil, errRefused
		}
		return fakeLink{}, nil
	}
	for range 5 {
		plan, err := Make(facts, backend)
		if err != nil {
			return plan, err
		}
		if _, err = attach(&ebpf.Collection{}, &plan, one); err == nil {
			return plan, nil
		}
		if !facts.refused(plan.Backend, err) {
			return plan, err
		}
	}
	t.Fatal("no end of plans")
	return Plan{}, nil
}

func wantRefused(t *testing.T, hook Hook, refused, backend string, plan Plan, err error) {
	t.Helper()
	if hook.Core {
		switch got := hookOf(plan, hook.Name); {
		case err != nil && (!errors.Is(err, ErrCannotTrace) || !errors.Is(err, errRefused)):
			t.Error(err)
		case err == nil && (backend != Auto || refused == "" && got.Backend != ""):
			t.Errorf("%s: %+v", plan.Backend, got)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if hook.Name == listenFunction { // a tracepoint tells the same
		if got := hookOf(plan, listenHook); got.Backend != Tracepoint || !strings.Contains(got.Note, errRefused.Error()) {
			t.Errorf("refused: %+v", got)
		}
		return
	}
	got := hookOf(plan, hook.Name)
	if refused == Trampoline && backend == Auto {
		if got.Backend != Kprobe || !strings.Contains(got.Note, errRefused.Error()) {
			t.Errorf("refused by trampoline: %+v", got)
		}
		return
	}
	if got.Backend != "" || !strings.Contains(got.Note, errRefused.Error()) {
		t.Errorf("refused: %+v", got)
	}
	if len(blindOf(plan)) <= 2 && hook.Name != "iter/task_file" { // besides what never is told
		t.Errorf("what is not seen for want of %s is not said: %v", hook.Name, blindOf(plan))
	}
}

// TestRefusedHere refuses a hook on this kernel, as it is attached.
func TestRefusedHere(t *testing.T) {
	facts, err := Gather("")
	if err != nil {
		t.Fatal(err)
	}
	one := func(hook *Hook, name string, program *ebpf.Program) (link.Link, error) {
		if hook.Name == "tcp_send_reset" {
			return nil, errRefused
		}
		return attachProgram(hook, name, program)
	}
	p, err := openBy(one, facts, Auto, Config{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, hook := range p.Plan().Events() {
		if refused := hook.Name == "tcp_send_reset"; refused && (hook.Attached || len(hook.Blind) == 0 ||
			!strings.HasPrefix(hook.Note, "refused: ") || !strings.Contains(hook.Note, errRefused.Error())) {
			t.Errorf("%+v", hook)
		}
	}
	if _, err := p.Walk(func(*Holder) {}, nil); err != nil {
		t.Error(err)
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
			name := neededType(spec.Types, relocation)
			seen[name] = true
			if !strings.HasPrefix(name, "struct ") || strings.ContainsAny(name, "[](): ") && strings.Count(name, " ") > 1 ||
				strings.Contains(name, "___") {
				t.Errorf("%s: %q", relocation, name)
			}
		}
	}
	for _, name := range []string{"struct sock.sk_ack_backlog", "struct sock.__sk_common.skc_net.net", "struct net.ipv4.tcp_death_row.hashinfo",
		"struct linux_mib", "struct sock_cgroup_data.val", "struct request_sock.rsk_timer"} {
		if !seen[name] {
			t.Errorf("nothing needs %s", name)
		}
	}
}
