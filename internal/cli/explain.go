// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
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
		text := strings.TrimPrefix(err.Error(), ErrUsage.Error()+": ")
		if by := kernel.Exhausted(err); by != "" {
			text += "\nit takes " + by
		}
		return text
	}
	lines := Refusal(err, MissingCapabilities())
	if lines == nil {
		lines = append([]string{PlainError(err)}, kernelHints(err)...)
	} else { // what each hook said then is the same refusal several times over
		lines[0] = ErrUnable.Error() + ": " + lines[0]
	}
	if errors.Is(err, facts.ErrNoBTF) {
		lines = append(lines,
			"use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give its type information with --btf FILE")
	}
	if !errors.As(err, new(CheckedError)) {
		lines = append(lines, "synspy check tells hook by hook what is allowed here")
	}
	return strings.Join(lines, "\n")
}

// Refusal says what it takes to be let do it, where something that is not the kernel's own lack
// stands in the way: a limit, the kernel's being locked down, missing capabilities. Nil is none of
// them.
func Refusal(err error, missing []kernel.Capability) []string {
	loading := errors.Is(err, facts.ErrVerifier) || errors.Is(err, facts.ErrCannotTrace) ||
		errors.Is(err, load.ErrMayNotRead)
	if by := kernel.Exhausted(err); by != "" {
		return []string{"it takes " + by}
	}
	if loading && kernel.SpareFiles() < FilesToLoad { // the library takes it for something else
		return []string{"it takes " + kernel.MoreFiles()}
	}
	noRead := errors.Is(err, load.ErrMayNotRead) && !slices.ContainsFunc(missing, Required)
	if loading && kernel.Confidential() || noRead {
		return []string{"this kernel is locked down (lockdown=confidentiality): it lets no program read its memory, whoever asks",
			"boot it with lockdown=integrity, or without"}
	}
	// The verifier asks more of those who may do less.
	if !IsRefused(err, missing) &&
		!(errors.Is(err, facts.ErrVerifier) && slices.ContainsFunc(missing, Required)) {
		return nil
	}
	by := slices.DeleteFunc(slices.Clone(missing),
		func(c kernel.Capability) bool { return !Required(c) && !explains(c, err) })
	return append([]string{"this needs privileges that the process does not have"},
		privilegeHints(by)...)
}

// Required reports whether synspy does nothing without it.
func Required(c kernel.Capability) bool { return !c.Optional }

// filesToLoad is more than what loading all programs opens at once, or a trace has open (80 of the
// tracepoint backend); a diagnosis has as many more as filesToSample, and one for each CPU.
const (
	FilesToLoad   = 96
	FilesToSample = 64
)

// EnoughFiles refuses a run that would get into the limit of open files halfway through.
func EnoughFiles(needed int) error {
	if kernel.SpareFiles() >= uint64(needed) {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnable, unix.EMFILE)
}

// kernelHints says what to do about what this kernel does not have.
func kernelHints(err error) (lines []string) {
	if errors.Is(err, kernel.ErrSymbolsHidden) {
		lines = append(lines, ShowSymbols)
	}
	if errors.Is(err, facts.ErrNoType) {
		lines = append(lines,
			"a file given with --btf must hold the types of this very kernel: Linux "+kernel.Release(),
			"if they are its own, it needs a newer synspy")
	}
	if errors.Is(err, facts.ErrVerifier) {
		lines = append(lines,
			"that is a fault of synspy: please report it, with what --log-level debug says")
	}
	if errors.Is(err, facts.ErrCannotTrace) && !errors.Is(err, facts.ErrNoType) {
		lines = append(lines,
			"Linux "+kernels+", can; without --backend synspy takes whatever hooks there are")
	}
	return lines
}

// ShowSymbols is for a root who sees no addresses in /proc/kallsyms.
const ShowSymbols = "let root see kernel symbols: sysctl kernel.kptr_restrict=1"

// privilegeHints names what is missing and how to get it: sudo does not help a
// root whose capabilities were taken away, as in a container.
func privilegeHints(missing []kernel.Capability) []string {
	var hints, short []string
	for _, c := range missing {
		hints = append(hints, "missing "+c.Name+": to "+c.Why)
		short = append(short, strings.TrimPrefix(c.Name, "CAP_"))
	}
	if os.Geteuid() == 0 {
		return append(hints,
			"root lacks them here: start the container with --privileged, or --cap-add "+
				strings.Join(short, ","))
	}
	return append(hints, "run it with sudo")
}

// PlainError is an error's text for people.
func PlainError(err error) string { return WithoutGuesses(err.Error()) }

// WithoutGuesses takes out cilium/ebpf's guess at EPERM. It is wrong here: the
// limit was lifted before, and since 5.11 does not matter.
func WithoutGuesses(text string) string {
	return strings.ReplaceAll(text, " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)",
		"")
}

// CheckedError is one that a whole report went before: nobody need be sent to
// that report.
type CheckedError struct{ Err error }

func (e CheckedError) Error() string { return e.Err.Error() }

func (e CheckedError) Unwrap() error { return e.Err }

// IsRefused reports whether an error is what these missing capabilities lead to. A
// kernel may refuse the privileged too.
func IsRefused(err error, missing []kernel.Capability) bool {
	return slices.ContainsFunc(missing,
		func(c kernel.Capability) bool { return explains(c, err) })
}

// explains reports whether an error is what the lack of a capability leads to.
func explains(c kernel.Capability, err error) bool {
	switch c.Bit {
	case unix.CAP_BPF, unix.CAP_PERFMON:
		return errors.Is(err, unix.EPERM)
	case unix.CAP_SYS_PTRACE: // another process's /proc
		return errors.Is(err, unix.EACCES)
	case unix.CAP_SYSLOG:
		return errors.Is(err, kernel.ErrSymbolsHidden)
	}
	return false
}

// MissingCapabilities are those that this process lacks.
func MissingCapabilities() []kernel.Capability {
	set, err := kernel.EffectiveCapabilities()
	if err != nil {
		return nil // then nothing is known to be missing
	}
	return kernel.MissingCapabilities(set)
}

// ErrUnable wraps errors that mean: this kernel or these privileges can't.
var ErrUnable = errors.New("unable to trace here")
