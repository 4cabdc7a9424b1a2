// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"strings"
)

// HookError says that the kernel refused a hook, which some plans can do without.
type HookError struct {
	Hook, Backend string
	Core          bool
	Err           error
}

func (e *HookError) Error() string { return fmt.Sprintf("%s: %v", e.Hook, e.Err) }

func (e *HookError) Unwrap() error { return e.Err }

// ErrVerifier says that the verifier refused a program: a fault of synspy's own.
var ErrVerifier = errors.New("this kernel's verifier refuses a program")

// Attempt is a hook, and how it was tried.
type Attempt struct{ Hook, Backend string }

// Refusal says why the hook cannot be had that way, as far as is known: nil if it may.
func (f *Facts) Refusal(hook, backend string) error {
	support := map[string]Support{Trampoline: f.Trampoline, Kprobe: f.Kprobe,
		Tracepoint: f.Tracepoint}
	if err := support[backend].Err; err != nil {
		return err
	}
	return f.RefusedHooks[Attempt{hook, backend}]
}

// Refused books an error against the hook or the backend that met it, once; false if
// there is nothing left to try.
func (f *Facts) Refused(backend string, err error) bool {
	if errors.Is(err, ErrVerifier) {
		return false
	}
	var hook *HookError
	if errors.As(err, &hook) {
		if !hook.Core {
			return f.refusedHook(hook)
		}
		backend = hook.Backend
	}
	switch support := (Support{true, err}); {
	case strings.Contains(backend, Trampoline) && f.Trampoline.Maybe():
		f.Trampoline = support
	case strings.Contains(backend, Kprobe) && f.Kprobe.Maybe():
		f.Kprobe = support
	case backend == Tracepoint && f.Tracepoint.Maybe():
		f.Tracepoint = support
	default:
		return false
	}
	return true
}

// refusedHook books a hook that one can do without.
func (f *Facts) refusedHook(refused *HookError) bool {
	tried := Attempt{refused.Hook, refused.Backend}
	if f.RefusedHooks[tried] != nil {
		return false
	}
	if f.RefusedHooks == nil {
		f.RefusedHooks = make(map[Attempt]error)
	}
	f.RefusedHooks[tried] = refused.Err
	return true
}
