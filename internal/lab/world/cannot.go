// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrCannotHold means that this kernel lacks what a scenario needs. The error
// that wraps it says what that is. Nothing was played.
var ErrCannotHold = errors.New("this kernel cannot hold the scenario")

// Untaken is the error of a BPF program that the kernel did not take. It wraps
// ErrCannotHold unless the verifier has something against the program itself.
func Untaken(kind string, err error) error {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("load %s program: %w", kind, err)
	}
	return fmt.Errorf("%w: it needs a kernel that lets BPF programs of type %s load and attach: %w", ErrCannotHold, kind, err)
}
