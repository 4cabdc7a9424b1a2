package probe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/event"
)

// hookError says that a hook was refused which one can do without.
type hookError struct {
	hook string
	err  error
}

func (e *hookError) Error() string { return fmt.Sprintf("attach %s: %v", e.hook, e.err) }
func (e *hookError) Unwrap() error { return e.err }

// attach puts every program of the plan at its hook. A refusal ends it: as a
// [hookError] where the plan can be made without that hook.
func attach(collection *ebpf.Collection, plan *Plan) ([]link.Link, error) {
	var links []link.Link
	for i := range plan.Hooks {
		hook := &plan.Hooks[i]
		if hook.Backend == "" || hook.Backend == iterator {
			continue
		}
		own, err := attachHook(collection, hook)
		if err != nil && hook.Core {
			return links, fmt.Errorf("attach %s by %s: %w", hook.Name, hook.Backend, err)
		}
		if err != nil {
			return links, &hookError{hook.Name, err}
		}
		links = append(links, own...)
	}
	return links, nil
}

// attachHook attaches all of a hook's programs or none. Exits are listed first
// for kprobes and last for trampolines; either way an exit without its entry
// finds nothing to compare.
func attachHook(collection *ebpf.Collection, hook *Hook) (links []link.Link, err error) {
	defer func() {
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			links = nil
		}
	}()
	for _, name := range hook.Programs {
		program := collection.Programs[name]
		var one link.Link
		switch {
		case strings.HasPrefix(name, "kprobe_"):
			one, err = link.Kprobe(hook.Name, program, nil)
		case strings.HasPrefix(name, "kretprobe_"):
			one, err = link.Kretprobe(hook.Name, program, &link.KprobeOptions{RetprobeMaxActive: retprobes})
		default:
			one, err = link.AttachTracing(link.TracingOptions{Program: program})
		}
		if err != nil {
			return links, err
		}
		links = append(links, one)
	}
	return links, nil
}

// retprobes is how many calls a kretprobe follows at once; the listen path runs
// once per CPU, so this serves hosts of that many CPUs.
const retprobes = 1024

// Events returns the plan as the ready record shows it.
func (p Plan) Events() []event.Hook {
	hooks := make([]event.Hook, 0, len(p.Hooks))
	for _, hook := range p.Hooks {
		hooks = append(hooks, event.Hook{Name: hook.Name, Backend: hook.Backend,
			Attached: hook.Backend != "", Note: hook.Note})
	}
	return hooks
}
