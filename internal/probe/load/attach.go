// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/plan"
)

// Attacher attaches one program of a hook.
type Attacher func(hook *plan.Hook, name string, program *ebpf.Program) (link.Link, error)

// Attach puts every program of the plan at its hook. A refusal ends it, as a
// [hookError].
func Attach(collection *ebpf.Collection, plan *plan.Plan, one Attacher) ([]link.Link, error) {
	var links []link.Link
	for i := range plan.Hooks {
		hook := &plan.Hooks[i]
		own, err := attachHook(collection, hook, one)
		if err != nil {
			return links, &facts.HookError{Hook: hook.Name, Backend: hook.Backend,
				Core: hook.Core, Err: fmt.Errorf("attach by %s: %w", hook.Backend,
					err)}
		}
		links = append(links, own...)
	}
	return links, nil
}

// attachHook attaches all of a hook's programs or none. Exits are listed first
// for kprobes and last for trampolines; either way an exit without its entry
// finds nothing to compare.
func attachHook(collection *ebpf.Collection, hook *plan.Hook, one Attacher) (links []link.Link,
	err error) {
	defer func() {
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			links = nil
		}
	}()
	for _, name := range hook.Programs {
		l, err := one(hook, name, collection.Programs[name])
		if err != nil {
			return links, err
		}
		links = append(links, l)
	}
	if len(hook.Programs) == 0 && hook.Late != "" { // whether it may be is seen now
		l, err := one(hook, hook.Late, collection.Programs[hook.Late])
		if err != nil {
			return nil, err
		}
		return nil, l.Close()
	}
	return links, nil
}

// AttachProgram attaches a program to what its hook names. An iterator is only read,
// by whoever attaches it then: here it is seen whether it can be.
func AttachProgram(hook *plan.Hook, name string, program *ebpf.Program) (link.Link, error) {
	switch {
	case hook.Backend == facts.Iterator:
		return link.AttachIter(link.IterOptions{Program: program})
	case strings.HasPrefix(name, "kprobe_"):
		return link.Kprobe(hook.Name, program, nil)
	case strings.HasPrefix(name, "kretprobe_"):
		return link.Kretprobe(hook.Name, program,
			&link.KprobeOptions{RetprobeMaxActive: activeOf(hook)})
	}
	return link.AttachTracing(link.TracingOptions{Program: program})
}

// retprobes is how many calls a kretprobe follows at once; the listen path runs
// once per CPU, so this serves hosts of that many CPUs.
const retprobes = 1024

// activeOf is that of a hook: each task that sleeps in accept() takes one.
func activeOf(hook *plan.Hook) int {
	if hook.Name == facts.AcceptFunction || hook.Name == facts.SysAccept {
		return 4 * retprobes
	}
	return retprobes
}
