// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
)

// findSleepers tells the kernel side which tasks sleep in accept() and for which listener: no hook sees the exit of a call that
// began before it. Where there are none, what sees their first accept is let go, since every accept pays for it. The gate is closed.
func (p *Probe) findSleepers(found *holders.Found) error {
	if !p.plan.Attaches(facts.GraftFunction) {
		return nil
	}
	// Until all are known, whatever accept() is seen takes its task out again.
	if err := p.putSleepers(1 << 32); err != nil {
		return err
	}
	var put uint64
	type opened struct {
		pid   uint32
		inode uint64
	}
	asked, asleep := make(map[uint32]bool), make(map[opened][]kernel.InAccept)
	for _, h := range found.Sleepable {
		if asked[h.PID] {
			continue
		}
		asked[h.PID] = true
		for _, s := range kernel.SleepersInAccept(h.PID) {
			at := opened{h.PID, s.Inode}
			asleep[at] = append(asleep[at], s)
		}
	}
	for _, h := range found.Sleepable {
		at := opened{h.PID, h.Inode}
		for _, s := range asleep[at] {
			n, err := p.putSleeper(h.PID, s, h.Socket)
			if err != nil {
				return err
			}
			put += n
		}
		delete(asleep, at) // it may have it open more than once
	}
	found.Sleepable = nil
	if err := p.putSleepers(put); err != nil || put > 0 {
		return err
	}
	return p.letGo(facts.GraftFunction)
}

// putSleeper returns 1, or 0 if it has left accept() meanwhile.
func (p *Probe) putSleeper(pid uint32, s kernel.InAccept, socket uint64) (uint64, error) {
	task := uint64(pid)<<32 | uint64(s.TID)
	sleepers := p.Collection.Maps["sleepers"]
	if err := sleepers.Put(task, socket); err != nil {
		return 0, fmt.Errorf("tell who sleeps in accept(): %w", err)
	}
	if kernel.StillInAccept(pid, s) {
		return 1, nil
	}
	switch err := sleepers.Delete(task); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return 1, nil // its accept was seen, and took it out
	case err != nil:
		return 0, fmt.Errorf("tell who sleeps in accept(): %w", err)
	}
	return 0, nil
}

func (p *Probe) putSleepers(n uint64) error {
	if err := p.Collection.Variables["sleepers_put"].Set(n); err != nil {
		return fmt.Errorf("tell how many sleep in accept(): %w", err)
	}
	return nil
}

// letGo detaches a hook that is not needed, and takes it out of the plan.
func (p *Probe) letGo(hook string) error {
	first := 0
	for i := range p.plan.Hooks {
		h := &p.plan.Hooks[i]
		if h.Name != hook {
			first += len(h.Programs)
			continue
		}
		var errs []error
		for _, l := range p.links[first : first+len(h.Programs)] {
			errs = append(errs, l.Close())
		}
		p.links = slices.Delete(p.links, first, first+len(h.Programs))
		p.plan.Hooks = slices.Delete(p.plan.Hooks, i, i+1)
		return errors.Join(errs...)
	}
	return nil
}
