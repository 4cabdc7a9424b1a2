package app

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/render"
)

// Explain says what went wrong, and, on lines of its own, what to do about it.
// Errors quote names from outside: what is not seen on a terminal is escaped.
func Explain(err error) string {
	var lines []string
	for line := range strings.SplitSeq(explain(err), "\n") {
		lines = append(lines, render.Terminal(line))
	}
	return strings.Join(lines, "\n")
}

func explain(err error) string {
	if !errors.Is(err, ErrUnable) {
		return strings.TrimPrefix(err.Error(), ErrUsage.Error()+": ")
	}
	missing := missingCapabilities()
	// The verifier asks more of those who may do less.
	refused := isRefused(err, missing) || errors.Is(err, probe.ErrVerifier) &&
		slices.ContainsFunc(missing, func(c kernel.Capability) bool { return !c.Optional })
	var lines []string
	if refused {
		// What each hook said then is the same refusal several times over.
		lines = append(lines, ErrUnable.Error()+": this needs privileges that the process does not have")
		lines = append(lines, privilegeHints(missing)...)
	} else {
		lines = append(lines, plainError(err))
	}
	if errors.Is(err, probe.ErrNoBTF) {
		lines = append(lines, "use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give its type information with --btf FILE")
	}
	if errors.Is(err, kernel.ErrSymbolsHidden) && !refused {
		lines = append(lines, showSymbols)
	}
	if errors.Is(err, probe.ErrNoType) && !refused {
		lines = append(lines, "a file given with --btf must hold the types of this very kernel: Linux "+kernel.Release(),
			"if they are its own, it needs a newer synspy")
	}
	if errors.Is(err, probe.ErrVerifier) && !refused {
		lines = append(lines, "that is a fault of synspy: please report it, with what --log-level debug says")
	}
	if errors.Is(err, probe.ErrCannotTrace) && !errors.Is(err, probe.ErrNoType) && !refused {
		lines = append(lines, "Linux "+kernels+", can; without --backend synspy takes whatever hooks there are")
	}
	if !errors.As(err, new(checkedError)) {
		lines = append(lines, "synspy check tells hook by hook what is allowed here")
	}
	return strings.Join(lines, "\n")
}

// showSymbols is for a root who sees no addresses in /proc/kallsyms.
const showSymbols = "let root see kernel symbols: sysctl kernel.kptr_restrict=1"

// privilegeHints names what is missing and how to get it: sudo does not help a
// root whose capabilities were taken away, as in a container.
func privilegeHints(missing []kernel.Capability) []string {
	var hints, short []string
	for _, c := range missing {
		if c.Optional {
			continue
		}
		hints = append(hints, "missing "+c.Name+": to "+c.Why)
		short = append(short, strings.TrimPrefix(c.Name, "CAP_"))
	}
	if os.Geteuid() == 0 {
		return append(hints, "root lacks them here: start the container with --privileged, or --cap-add "+
			strings.Join(short, ","))
	}
	return append(hints, "run it with sudo")
}

// plainError is an error's text for people.
func plainError(err error) string { return withoutGuesses(err.Error()) }

// withoutGuesses takes out cilium/ebpf's guess at EPERM. It is wrong here: the
// limit was lifted before, and since 5.11 does not matter.
func withoutGuesses(text string) string {
	return strings.ReplaceAll(text, " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
}
