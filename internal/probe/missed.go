// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"github.com/synspy/synspy/internal/bpf"
)

// Missed is what the kernel side could not keep, and counted instead.
type Missed struct {
	Untracked      uint64 // packets and counter movements of namespaces that no table had room for
	UnlistedDrops  uint64 // packets of listeners that counts had no row for
	UnlistedSyns   uint64 // SYNs to listeners that arrivals had no row for
	Forgotten      uint64 // handshakes that lost a packet, and gave way to newer ones
	ListenersLost  uint64 // openings and closings that the ring buffer had no room for
	RecordsUnowned uint64 // packets that no row of counts had room for
	Unanswered     uint64 // SYNs told of as dropped that may have been rejected
	Skipped        uint64 // runs that the kernel skipped, a program being interrupted by itself
}

// Missed returns what was missed so far.
func (p *Probe) Missed() (m Missed, err error) {
	for _, v := range []struct {
		name string
		to   *uint64
	}{{"untracked", &m.Untracked}, {"unlisted_drops", &m.UnlistedDrops}, {"unlisted_syns",
		&m.UnlistedSyns},
		{"changes_lost", &m.ListenersLost}, {"uncounted", &m.RecordsUnowned}} {
		if err := p.Collection.Variables[v.name].Get(v.to); err != nil {
			return m, fmt.Errorf("read %s: %w", v.name, err)
		}
	}
	m.UnlistedSyns += p.DepartedSyns
	if err := p.EachCPU(func(cpu *bpf.SynspyCpuState) { m.Forgotten += cpu.Attempts.Forgotten }); err != nil {
		return m, fmt.Errorf("read what was forgotten: %w", err)
	}
	if m.Unanswered, err = p.unanswered(); err != nil {
		return m, err
	}
	if m.Skipped, err = p.skipped(readSkips); err != nil {
		return m, err
	}
	return m, nil
}
