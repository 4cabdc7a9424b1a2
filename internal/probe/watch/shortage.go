// SPDX-License-Identifier: Apache-2.0

// Package watch has the programs that are attached for a while, to answer one question: accept()
// calls that fail, and packets that are lost on their way out.
package watch

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/plan"
)

// Shortages sees accept() calls of some processes that return no connection for want of a descriptor, a file or memory. It is
// made by OpenShortages, sees something only between Attach and Detach, and is freed by Close. One goroutine may use it.
type Shortages struct {
	collection *ebpf.Collection
	hook       plan.Hook
	attached   link.Link // nil: not now
}

// Shortage counts such calls of one process.
type Shortage struct {
	PID   uint32
	FD    int32 // of the listener, -1 where it is not known
	Error int32 // errno
	Count uint64
}

// OpenShortages loads what can be attached on this kernel, in the way in which the probe sees connections accepted, and attaches
// nothing. The error is of each way that was tried.
func OpenShortages(facts *facts.Facts, plan *plan.Plan) (*Shortages, error) {
	var refused error
	for _, hook := range shortageHooks(facts, plan) {
		s, err := OpenHook(facts, hook)
		if err == nil {
			return s, nil
		}
		refused = errors.Join(refused, fmt.Errorf("%s by %s: %w", hook.Name, hook.Backend,
			err))
	}
	return nil, fmt.Errorf("watch what accept() returns: %w", refused)
}

// shortageHooks are the ways to see it, the cheapest first.
func shortageHooks(here *facts.Facts, planned *plan.Plan) (hooks []plan.Hook) {
	if planned.Attaches(facts.AcceptFunction) {
		if here.LeavesSleepers() {
			hooks = append(hooks,
				plan.Hook{Name: facts.SysAccept, Backend: facts.Trampoline,
					Programs: []string{bpf.ShortageProgFexitSysAccept4}})
		}
		hooks = append(hooks, plan.Hook{Name: facts.SysAccept, Backend: facts.Kprobe,
			Programs: []string{bpf.ShortageProgKretprobeSysAccept4}})
	}
	return append(hooks, plan.Hook{Name: "sys_exit", Backend: facts.Tracepoint,
		Programs: []string{bpf.ShortageProgTpBtfSysExit}})
}

// OpenHook loads one, and attaches it once to see whether it can be.
func OpenHook(facts *facts.Facts, hook plan.Hook) (*Shortages, error) {
	spec, err := bpf.LoadShortage()
	if err != nil {
		return nil, fmt.Errorf("read BPF objects: %w", err)
	}
	for name := range spec.Programs {
		if name != hook.Programs[0] {
			delete(spec.Programs, name)
		}
	}
	var options ebpf.CollectionOptions
	if facts.BtfFile != "" {
		if options.Programs.KernelTypes, err = btf.LoadSpec(facts.BtfFile); err != nil {
			return nil, fmt.Errorf("load type information: %w", err)
		}
	}
	s := &Shortages{hook: hook}
	if s.collection, err = ebpf.NewCollectionWithOptions(spec, options); err != nil {
		return nil, err
	}
	// Twice: a trampoline that was taken off cannot be put on again before 5.13 (f3a95075549e).
	for range 2 {
		if err := errors.Join(s.Attach(), s.Detach()); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Costly reports whether every system call of every process pays while it is attached.
func (s *Shortages) Costly() bool { return s.hook.Backend == facts.Tracepoint }

// Watch adds processes whose calls are counted.
func (s *Shortages) Watch(pids []uint32) error {
	for _, pid := range pids {
		if err := s.collection.Maps[bpf.ShortageMapCallers].Put(pid,
			uint32(1)); err != nil {
			return fmt.Errorf("watch what accept() returns to process %d: %w", pid, err)
		}
	}
	return nil
}

// Attach begins to count.
func (s *Shortages) Attach() (err error) {
	name := s.hook.Programs[0]
	if s.attached, err = load.AttachProgram(&s.hook, name,
		s.collection.Programs[name]); err != nil {
		s.attached = nil
		return fmt.Errorf("attach to %s: %w", s.hook.Name, err)
	}
	return nil
}

// Detach stops counting. What was counted stays.
func (s *Shortages) Detach() error {
	if s.attached == nil {
		return nil
	}
	err := s.attached.Close()
	s.attached = nil
	return err
}

// Read returns what was counted so far, and how many calls there was no room for.
func (s *Shortages) Read() (list []Shortage, overflowed uint64, err error) {
	var (
		key   bpf.ShortageShortage
		count uint64
	)
	entries := s.collection.Maps[bpf.ShortageMapShortages].Iterate()
	for entries.Next(&key, &count) {
		list = append(list, Shortage{PID: key.Tgid, FD: key.Fd, Error: int32(key.Error),
			Count: count})
	}
	if err := entries.Err(); err != nil {
		return nil, 0, fmt.Errorf("read what accept() returned: %w", err)
	}
	if err := s.collection.Variables[bpf.ShortageVarOverflowed].Get(&overflowed); err != nil {
		return nil, 0, fmt.Errorf("read what accept() returned: %w", err)
	}
	return list, overflowed, nil
}

// Close detaches and frees it.
func (s *Shortages) Close() error {
	err := s.Detach()
	s.collection.Close()
	return err
}
