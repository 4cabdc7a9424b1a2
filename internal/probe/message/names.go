// SPDX-License-Identifier: Apache-2.0

package message

import (
	"log/slog"
	"strings"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/reason"
)

// Names turns the kernel's numbers of a record into names, which are looked up once.
type Names struct {
	Reasons   map[uint32]string
	functions map[uint64]string
	log       *slog.Logger
}

// NewNames takes the kernel's enum skb_drop_reason, empty where it has none.
func NewNames(reasons map[string]uint32, log *slog.Logger) *Names {
	n := &Names{Reasons: make(map[uint32]string, len(reasons)),
		functions: make(map[uint64]string),
		log:       log}
	for name, number := range reasons {
		n.Reasons[number] = strings.TrimPrefix(name, reason.Prefix)
	}
	return n
}

// Reason names a kernel drop reason as enum skb_drop_reason does, less its prefix;
// empty where none was told.
func (n *Names) Reason(m *Message) string {
	if m.Reason == 0 {
		return ""
	}
	return n.Reasons[m.Reason]
}

// NamesReason reports whether this kernel has a drop reason of that name, less its prefix.
func (n *Names) NamesReason(name string) bool {
	for _, known := range n.Reasons {
		if known == name {
			return true
		}
	}
	return false
}

// maxFunctions bounds how many code addresses are remembered.
const maxFunctions = 1024

// FunctionAt names the kernel function at a code address; empty where that was not
// told (0), or the symbol is hidden.
func (n *Names) FunctionAt(address uint64) string {
	if address == 0 {
		return ""
	}
	name, known := n.functions[address]
	if !known && len(n.functions) < maxFunctions {
		var err error
		if name, err = kernel.SymbolAt(address); err != nil {
			n.log.Debug("name a code address", "error", err)
		}
		n.functions[address] = name
	}
	return name
}
