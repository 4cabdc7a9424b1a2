// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"

	"github.com/synspy/synspy/internal/kernel"
)

// names turns the kernel's numbers of a record into names, which are looked up once.
type names struct {
	reasons   map[uint32]string
	functions map[uint64]string
}

func newNames(reasons map[string]uint32) *names {
	n := &names{reasons: make(map[uint32]string, len(reasons)), functions: make(map[uint64]string)}
	for name, number := range reasons {
		n.reasons[number] = strings.TrimPrefix(name, reasonPrefix)
	}
	return n
}

// Reason names a kernel drop reason as enum skb_drop_reason does, less its prefix;
// empty where none was told.
func (p *Probe) Reason(m *Message) string {
	if m.Reason == 0 {
		return ""
	}
	return p.names.reasons[m.Reason]
}

// NamesReason tells whether this kernel has a drop reason of that name, less its prefix.
func (p *Probe) NamesReason(name string) bool {
	_, ok := p.facts.Reasons[reasonPrefix+name]
	return ok
}

// maxFunctions bounds how many code addresses are remembered.
const maxFunctions = 1024

// functionAt names the kernel function at a code address; empty where that was not
// told (0), or the symbol is hidden.
func (p *Probe) functionAt(address uint64) string {
	if address == 0 {
		return ""
	}
	name, known := p.names.functions[address]
	if !known && len(p.names.functions) < maxFunctions {
		var err error
		if name, err = kernel.SymbolAt(address); err != nil {
			p.log.Debug("name a code address", "error", err)
		}
		p.names.functions[address] = name
	}
	return name
}
