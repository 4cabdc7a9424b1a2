// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
)

// The kernel skips a program that interrupts itself (from 6.1 on; those before run it). Where a counter depends on the
// event, a second program at the same place, its twin, sees what was skipped.

// twin ends the name of a twin, see seen_before in bpf/freed.h.
const twin = "_twin"

// late is what is known of the programs that are attached once another was skipped.
type late struct {
	attached map[string]bool
	skipped  uint64 // runs, before they were
}

// skips tells how many runs of a program the kernel skipped. It says so since 5.12.
type skips func(name string, program *ebpf.Program) (uint64, error)

func readSkips(name string, program *ebpf.Program) (uint64, error) {
	stats, err := program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read what %s missed: %w", name, err)
	}
	return stats.RecursionMisses, nil
}

// AttachLate attaches the twin of each program that was skipped. A connection changes its state ten times and pays for a
// program each time, while most machines never skip one: there a twin would double what it pays. What is skipped until then
// is one arrival that is not counted, which [Missed] tells; a cookie's counter that it moved goes to no other packet,
// since no drop moves it alone.
func (p *Probe) AttachLate() error { return p.attachLate(readSkips, attachProgram) }

func (p *Probe) attachLate(read skips, one attacher) error {
	for i := range p.plan.Hooks {
		hook := &p.plan.Hooks[i]
		if hook.Late == "" || p.late.attached[hook.Late] {
			continue
		}
		first := strings.TrimSuffix(hook.Late, twin)
		skipped, err := read(first, p.collection.Programs[first])
		if err != nil || skipped == 0 {
			return err
		}
		link, err := one(hook, hook.Late, p.collection.Programs[hook.Late])
		if err != nil {
			return fmt.Errorf("attach %s: %w", hook.Late, err)
		}
		p.links = append(p.links, link)
		if skipped, err = read(first, p.collection.Programs[first]); err != nil {
			return err
		}
		if p.late.attached == nil {
			p.late.attached = make(map[string]bool)
		}
		p.late.attached[hook.Late] = true
		p.late.skipped += skipped
		p.log.Debug("attached", "program", hook.Late, "skipped", skipped)
	}
	return nil
}

// skipped is how many runs were lost so far: of programs without an attached twin.
func (p *Probe) skipped(read skips) (uint64, error) {
	sum := p.late.skipped
	for name, program := range p.collection.Programs {
		if strings.HasSuffix(name, twin) || p.hasTwin(name) {
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
	if p.collection.Programs[name+twin] == nil {
		return false
	}
	for i := range p.plan.Hooks {
		if p.plan.Hooks[i].Late == name+twin {
			return p.late.attached[name+twin]
		}
	}
	return true
}
