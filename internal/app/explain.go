package app

import (
	"errors"
	"os"
	"strings"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe"
)

// Explain says what went wrong, and, on lines of its own, what to do about it.
func Explain(err error) string {
	text := strings.TrimPrefix(err.Error(), ErrUsage.Error()+": ")
	var hints []string
	if errors.Is(err, ErrUnable) {
		hints = unableHints(err)
	}
	return strings.Join(append([]string{text}, hints...), "\n")
}

func unableHints(err error) []string {
	var hints []string
	if set, capErr := kernel.EffectiveCapabilities(); capErr == nil {
		var names []string
		for _, c := range kernel.MissingCapabilities(set) {
			names = append(names, c.Name+" to "+c.Why)
		}
		if len(names) > 0 {
			hints = append(hints, "missing privileges: "+strings.Join(names, "; "), "run it with sudo")
		}
	}
	if errors.Is(err, probe.ErrNoBTF) {
		hints = append(hints, "use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give its type information with --btf FILE")
	}
	if os.Geteuid() == 0 || len(hints) == 0 {
		hints = append(hints, "synspy check tells hook by hook what this kernel allows")
	}
	return hints
}
