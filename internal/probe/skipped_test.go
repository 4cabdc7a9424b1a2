// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"log/slog"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/plan"
)

// TestAttachLate: a twin is attached once its program was skipped, not before, once; and what was skipped until then is told.
func TestAttachLate(t *testing.T) {
	here, err := facts.Gather("")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(here, facts.Tracepoint, load.Config{Rate: 100, RingSize: 1 << 16},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const first = "tp_btf_inet_sock_set_state"
	var (
		kernel   uint64
		attached []string
	)
	read := func(name string, _ *ebpf.Program) (uint64, error) {
		if name != first {
			return 0, nil
		}
		return kernel, nil
	}
	one := func(hook *plan.Hook, name string, program *ebpf.Program) (link.Link, error) {
		attached = append(attached, name)
		return load.AttachProgram(hook, name, program)
	}
	for _, step := range []struct {
		kernel, told uint64 // runs of the program that were skipped, and lost
		attached     int
	}{{0, 0, 0}, {0, 0, 0}, {3, 3, 1}, {7, 3, 1}} {
		kernel = step.kernel
		if err := p.attachLate(read, noModules, one); err != nil {
			t.Fatal(err)
		}
		lost, err := p.skipped(read)
		if err != nil {
			t.Fatal(err)
		}
		if lost != step.told || len(attached) != step.attached {
			t.Errorf("skipped %d: told %d, attached %v, want %d and %d programs",
				step.kernel, lost, attached, step.told, step.attached)
		}
	}
	for _, name := range attached {
		if name != first+facts.Twin {
			t.Errorf("attached %s", name)
		}
	}
}

// TestAttachAnswers: what sees netfilter's answers is attached once a rule may reject, and what died
// before is told.
func TestAttachAnswers(t *testing.T) {
	type step struct {
		use           kernel.RejectUse
		rules, others uint64 // SYNs that died unwatched
		attached      int
		told          uint64
	}
	unused := kernel.RejectUse{Loaded: true}
	used := kernel.RejectUse{Loaded: true, Used: true}
	for _, c := range []struct {
		name    string
		builtIn bool
		steps   []step
	}{
		{"modules", false, []step{{use: unused}, {use: unused, rules: 5},
			{use: used, rules: 7, attached: 1, told: 2}, {use: used, rules: 7,
				attached: 1, told: 2}}},
		{"modules that come later", false,
			[]step{{}, {rules: 5}, {use: used, rules: 5, attached: 1}}},
		{"answered by routing", false,
			[]step{{use: unused, others: 1, attached: 1, told: 1}}},
		{"nobody answers", false, []step{{others: 1, told: 1}}},
		{"built in", true, []step{{}, {rules: 1, attached: 1, told: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := openAnswers(t, c.builtIn)
			attached := 0
			one := func(hook *plan.Hook, name string, program *ebpf.Program) (link.Link,
				error) {
				attached++
				return load.AttachProgram(hook, name, program)
			}
			for _, s := range c.steps {
				set(t, p, "unwatched_rules", s.rules)
				set(t, p, "unwatched_others", s.others)
				modules := func() (kernel.RejectUse, error) { return s.use, nil }
				if err := p.attachLate(neverSkipped, modules, one); err != nil {
					t.Fatal(err)
				}
				var watched uint32
				if err := p.Collection.Variables["answers_watched"].Get(&watched); err != nil {
					t.Fatal(err)
				}
				told, err := p.unanswered()
				if err != nil || told != s.told || attached != s.attached ||
					int(watched) != s.attached {
					t.Errorf("%+v: told %d, attached %d, watched %d: %v", s,
						told, attached, watched, err)
				}
			}
		})
	}
}

func noModules() (kernel.RejectUse, error) { return kernel.RejectUse{}, nil }

func neverSkipped(string, *ebpf.Program) (uint64, error) { return 0, nil }

// openAnswers opens a probe where no rule rejects yet.
func openAnswers(t *testing.T, builtIn bool) *Probe {
	t.Helper()
	here, err := facts.Gather("")
	if err != nil {
		t.Fatal(err)
	}
	here.ReadCode()
	here.Rejects = false
	delete(here.Code, facts.RejectFunction)
	if builtIn {
		here.Code[facts.RejectFunction] = []kernel.Range{{Start: 1, End: 2}}
	}
	p, err := Open(here, facts.Tracepoint, load.Config{Rate: 100, RingSize: 1 << 16},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func set(t *testing.T, p *Probe, variable string, value uint64) {
	t.Helper()
	if err := p.Collection.Variables[variable].Set(value); err != nil {
		t.Fatal(err)
	}
}
