// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/event"
)

// hookError says that the kernel refused a hook, which some plans can do without.
type hookError struct {
	hook, backend string
	core          bool
	err           error
}

func (e *hookError) Error() string { return fmt.Sprintf("%s: %v", e.hook, e.err) }
func (e *hookError) Unwrap() error { return e.err }

// attacher attaches one program of a hook.
type attacher func(hook *Hook, name string, program *ebpf.Program) (link.Link, error)

// attach puts every program of the plan at its hook. A refusal ends it, as a
// [hookError].
func attach(collection *ebpf.Collection, plan *Plan, one attacher) ([]link.Link, error) {
	var links []link.Link
	for i := range plan.Hooks {
		hook := &plan.Hooks[i]
		own, err := attachHook(collection, hook, one)
		if err != nil {
			return links, &hookError{hook.Name, hook.Backend, hook.Core, fmt.Errorf("attach by %s: %w", hook.Backend, err)}
		}
		links = append(links, own...)
	}
	return links, nil
}

// attachHook attaches all of a hook's programs or none. Exits are listed first
// for kprobes and last for trampolines; either way an exit without its entry
// finds nothing to compare.
func attachHook(collection *ebpf.Collection, hook *Hook, one attacher) (links []link.Link, err error) {
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

// attachProgram attaches a program to what its hook names. An iterator is only read,
// by whoever attaches it then: here it is seen whether it can be.
func attachProgram(hook *Hook, name string, program *ebpf.Program) (link.Link, error) {
	switch {
	case hook.Backend == iterator:
		return link.AttachIter(link.IterOptions{Program: program})
	case strings.HasPrefix(name, "kprobe_"):
		return link.Kprobe(hook.Name, program, nil)
	case strings.HasPrefix(name, "kretprobe_"):
		return link.Kretprobe(hook.Name, program, &link.KprobeOptions{RetprobeMaxActive: activeOf(hook)})
	}
	return link.AttachTracing(link.TracingOptions{Program: program})
}

// retprobes is how many calls a kretprobe follows at once; the listen path runs
// once per CPU, so this serves hosts of that many CPUs.
const retprobes = 1024

// activeOf is that of a hook: each task that sleeps in accept() takes one.
func activeOf(hook *Hook) int {
	if hook.Name == acceptFunction || hook.Name == sysAccept {
		return 4 * retprobes
	}
	return retprobes
}

// Events returns the plan as the ready record shows it.
func (p Plan) Events() []event.Hook {
	hooks := make([]event.Hook, 0, len(p.Hooks))
	for _, hook := range p.Hooks {
		hooks = append(hooks, event.Hook{Name: hook.Name, Backend: hook.Backend,
			Attached: hook.hooked(), Note: hook.Note, Blind: hook.Blind})
	}
	return hooks
}
