// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/plan"
	"golang.org/x/sys/unix"
)

// ExplainRefusal finds out which program the kernel refused to load, and why: it loads one
// after the other. A field that the kernel's types lack, or a function without an
// address, is a refusal of that hook; other verdicts of the verifier are
// [ErrVerifier], and its log is for those who mend that.
func ExplainRefusal(here *facts.Facts, planned plan.Plan, config Config, err error,
	log *slog.Logger) error {
	if !errors.As(err, new(*ebpf.VerifierError)) {
		return err // of the whole backend
	}
	ledger := plan.Hook{Name: "the ledger", Backend: planned.Backend, Core: true,
		Programs: []string{snapshotProgram}}
	hooks := append([]plan.Hook{ledger}, planned.Hooks...)
	// Loading is slow. The error's text has a program's name in it: that one comes first.
	text := err.Error()
	named := func(h plan.Hook) bool {
		return slices.ContainsFunc(h.All(),
			func(name string) bool { return strings.Contains(text, name) })
	}
	hooks = slices.Concat(slices.DeleteFunc(slices.Clone(hooks),
		func(h plan.Hook) bool { return !named(h) }), slices.DeleteFunc(hooks, named))
	for _, hook := range hooks {
		for _, name := range hook.All() {
			collection, spec, loadErr := SomePrograms(here, planned, config, []string{name})
			if loadErr == nil {
				collection.Close()
				continue
			}
			var verifier *ebpf.VerifierError
			if !errors.As(loadErr, &verifier) {
				return loadErr
			}
			missing := missingType(verifier.Log, spec.Types,
				spec.Programs[name].Instructions)
			switch {
			case missing != "":
				err = fmt.Errorf("it reads %s, which is %w", missing,
					facts.ErrNoType)
			case MayNotRead(verifier.Log):
				return fmt.Errorf("%w: %s", ErrMayNotRead, hook.Name)
			case errors.Is(verifier.Cause, unix.ENOENT):
				err = fmt.Errorf("load by %s: %w", hook.Backend, verifier.Cause)
			default:
				log.Debug("verifier", "program", name, "log",
					strings.Join(verifier.Log, "\n"))
				return fmt.Errorf("%w: %s: %w", facts.ErrVerifier, hook.Name,
					verifier.Cause)
			}
			return &facts.HookError{Hook: hook.Name, Backend: hook.Backend,
				Core: hook.Core, Err: err}
		}
	}
	return fmt.Errorf("%w, but not each by itself", facts.ErrVerifier)
}

// ErrMayNotRead says that no program may read this kernel's memory, as where it is locked down.
var ErrMayNotRead = errors.New("this kernel lets no program read its memory")

// MayNotRead reports whether the verifier has no bpf_probe_read_kernel for a program, nor bpf_probe_read, which the library
// tries then.
func MayNotRead(log []string) bool {
	return slices.ContainsFunc(log, func(line string) bool {
		return strings.Contains(line, "bpf_probe_read") &&
			(strings.Contains(line, "unknown func") ||
				strings.Contains(line, "cannot use helper"))
	})
}

// missingType finds in a verifier's log what a relocation missed: the library makes
// an instruction of it that no verifier takes.
func missingType(log []string, types *btf.Spec, program asm.Instructions) string {
	poisoned := regexp.MustCompile(fmt.Sprintf(`^(\d+): \(\w\w\) (?:call unknown#%d|r10 = 0x%x)\b`,
		btf.COREBadRelocationSentinel, btf.COREBadRelocationSentinel))
	for _, line := range log {
		parts := poisoned.FindStringSubmatch(line)
		if parts == nil {
			continue
		}
		offset, _ := strconv.ParseUint(parts[1], 10, 32)
		for at := program.Iterate(); at.Next(); {
			if uint64(at.Offset) != offset {
				continue
			}
			if relocation := btf.CORERelocationMetadata(at.Ins); relocation != nil {
				return NeededType(types, relocation)
			}
		}
	}
	return ""
}

// NeededType names what a relocation needs: a type, or a member of it. The library
// shows that in the relocation's text only.
func NeededType(types *btf.Spec, relocation *btf.CORERelocation) string {
	parts := regexp.MustCompile(`\[([\d:]+)\], local_id=(\d+)\)$`).FindStringSubmatch(relocation.String())
	if parts == nil {
		return relocation.String()
	}
	id, _ := strconv.ParseUint(parts[2], 10, 32)
	t, err := types.TypeByID(btf.TypeID(id))
	if err != nil {
		return relocation.String()
	}
	// A flavour of a type has a suffix of its own.
	name, _, _ := strings.Cut(t.TypeName(), "___")
	name = "struct " + name
	steps := strings.Split(parts[1], ":")
	for _, step := range steps[1:] { // the first is an index of the pointer
		var members []btf.Member
		switch outer := btf.UnderlyingType(t).(type) {
		case *btf.Struct:
			members = outer.Members
		case *btf.Union:
			members = outer.Members
		case *btf.Array:
			t = outer.Type
			continue
		}
		n, err := strconv.Atoi(step)
		if err != nil || n >= len(members) {
			return name
		}
		if t = members[n].Type; members[n].Name != "" {
			name += "." + members[n].Name
		}
	}
	return name
}
