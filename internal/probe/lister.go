// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
)

// holdersProgram lists open files; it is read, not attached.
const holdersProgram = "iter_task_file"

// Lister lists listeners and who holds them. It attaches nothing: the kernel's
// packets do not meet it.
type Lister struct{ collection *ebpf.Collection }

// OpenLister loads the one program that this takes. btfFile is as in Gather. The error
// is ErrNoIterator where this kernel has no such iterator.
func OpenLister(btfFile string) (*Lister, error) {
	facts, err := Gather(btfFile)
	if err != nil {
		return nil, err
	}
	if facts.BTF != nil {
		return nil, facts.BTF
	}
	if _, ok := facts.Functions["bpf_iter_task_file"]; !ok {
		return nil, ErrNoIterator
	}
	collection, _, err := loadSome(facts, Plan{}, Config{RingSize: smallestRing}, []string{holdersProgram})
	if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
		err = fmt.Errorf("%w: %w", ErrVerifier, err)
		if mayNotRead(verifier.Log) {
			err = fmt.Errorf("%w: %w", ErrMayNotRead, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Lister{collection}, nil
}

// Each hands over who holds which listening socket, in every namespace. What f is given is overwritten by the next one.
func (l *Lister) Each(f func(*Holder)) error {
	return eachOf(l.collection, f)
}

func eachOf(collection *ebpf.Collection, f func(*Holder)) error {
	var h Holder
	err := eachListed(collection, func(raw *bpf.SynspyHolder) {
		if bpf.SynspyHolderKind(raw.Kind) == bpf.SynspyHolderKindHOLDER_LISTENER {
			h = holderOf(raw, h.Comm)
			f(&h)
		}
	})
	if err != nil && !errors.Is(err, ErrNoIterator) {
		err = fmt.Errorf("list holders: %w", err)
	}
	return err
}

// Close frees it.
func (l *Lister) Close() { l.collection.Close() }
