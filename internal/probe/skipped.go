// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/plan"
)

// The kernel skips a program that interrupts itself (from 6.1 on; those before run it). Where a counter depends on the
// event, a second program at the same place, its twin, sees what was skipped.

// late is what is known of the programs that are attached later, and of what was not seen before.
type late struct {
	attached map[string]bool
	looked   time.Time
	died     uint64 // by then, see unwatched
	skipped  uint64 // runs of programs, before their twins were attached
	dropped  uint64 // SYNs, by rules while none rejected
}

const lateEvery = time.Second

// skips tells how many runs of a program the kernel skipped. It says so since 5.12.
type skips func(name string, program *ebpf.Program) (uint64, error)

func readSkips(name string, program *ebpf.Program) (uint64, error) {
	stats, err := program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read what %s missed: %w", name, err)
	}
	return stats.RecursionMisses, nil
}

// AttachLate attaches what has become worth its price: the twin of each program that was skipped,
// and what sees netfilter's answers. A connection changes its state ten times and pays for a
// program each time, while most machines never skip one: there a twin would double what it pays.
// What is skipped until then is one arrival that is not counted, which [Missed] tells; a cookie's
// counter that it moved goes to no other packet, since no drop moves it alone. It looks once a
// second, and at once when a SYN died that may have been answered.
func (p *Probe) AttachLate() error {
	byRules, others, err := p.unwatched()
	if err != nil {
		return err
	}
	now, died := time.Now(), byRules+others
	if now.Sub(p.late.looked) < lateEvery && died == p.late.died {
		return nil
	}
	p.late.looked, p.late.died = now, died
	return p.attachLate(readSkips, kernel.ModulesReject, load.AttachProgram)
}

func (p *Probe) attachLate(read skips, modules rejectUse, one load.Attacher) error {
	for i := range p.plan.Hooks {
		hook := &p.plan.Hooks[i]
		if hook.Late == "" || p.late.attached[hook.Late] {
			continue
		}
		due, err := p.due(hook, read, modules)
		if err != nil {
			return err
		}
		if !due {
			continue
		}
		link, err := one(hook, hook.Late, p.Collection.Programs[hook.Late])
		if err != nil {
			return fmt.Errorf("attach %s: %w", hook.Late, err)
		}
		p.links = append(p.links, link)
		if p.late.attached == nil {
			p.late.attached = make(map[string]bool)
		}
		p.late.attached[hook.Late] = true
		if err := p.attachedLate(hook, read); err != nil {
			return err
		}
		p.log.Debug("attached", "program", hook.Late)
	}
	return nil
}

// due reports whether a hook's later program has become worth its price.
func (p *Probe) due(hook *plan.Hook, read skips, modules rejectUse) (bool, error) {
	if hook.Name == facts.AnswerEvent {
		return p.mayBeAnswered(modules)
	}
	skipped, err := read(firstOf(hook.Late, p))
	return skipped > 0, err
}

// attachedLate notes what was not seen before it was.
func (p *Probe) attachedLate(hook *plan.Hook, read skips) error {
	if hook.Name == facts.AnswerEvent {
		return p.watchAnswers()
	}
	skipped, err := read(firstOf(hook.Late, p))
	p.late.skipped += skipped
	return err
}

// firstOf is the program that a twin stands in for.
func firstOf(name string, p *Probe) (string, *ebpf.Program) {
	first := strings.TrimSuffix(name, facts.Twin)
	return first, p.Collection.Programs[first]
}

// skipped is how many runs were lost so far: of programs without an attached twin.
func (p *Probe) skipped(read skips) (uint64, error) {
	sum := p.late.skipped
	for name, program := range p.Collection.Programs {
		if strings.HasSuffix(name, facts.Twin) || p.hasTwin(name) {
			continue // where one of the two was skipped, the other ran
		}
		skipped, err := read(name, program)
		if err != nil {
			return 0, err
		}
		sum += skipped
	}
	return sum, nil
}

// hasTwin reports whether a program's twin is attached.
func (p *Probe) hasTwin(name string) bool {
	if p.Collection.Programs[name+facts.Twin] == nil {
		return false
	}
	for i := range p.plan.Hooks {
		if p.plan.Hooks[i].Late == name+facts.Twin {
			return p.late.attached[name+facts.Twin]
		}
	}
	return true
}
