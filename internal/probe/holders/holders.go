// SPDX-License-Identifier: Apache-2.0

// Package holders lists who holds which listening socket, by a BPF iterator over open files.
package holders

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/probe/plan"
)

// Holder is one open file of one process that is a listening socket.
type Holder struct {
	PID      uint32
	Start    uint64 // start_boottime, ns
	Comm     string
	Listener message.Listener
}

// Found is what a walk over every process's open files found beside the holders that it handed
// over: a machine may have a hundred thousand listeners, and none of them is kept here.
type Found struct {
	Namespaces map[load.Namespace]bool // whether anything listens there
	Backlog    map[uint64]uint32       // in the accept queues, where there was any
	Sleepable  []Held                  // who may sleep in accept(), where that matters
}

// Held is a listener that a process has open.
type Held struct {
	PID           uint32
	Inode, Socket uint64
}

// ErrNoIterator says that this kernel cannot list open files through BPF.
var ErrNoIterator = errors.New("no BPF iterator over open files")

// Walk hands over who holds which listening socket, in every namespace of a process, and, unless
// accepted is nil, then which process has a connection open that it accepted itself from such a
// socket. What f is given is overwritten by the next one. mayWait tells in which namespaces it
// matters who sleeps in accept(); nil: in none. With an error nothing counts as found.
func Walk(collection *ebpf.Collection, mayWait func(netns uint64) bool, f func(*Holder),
	accepted func(socket uint64, pid uint32, start uint64),
) (*Found, error) {
	found := &Found{Namespaces: make(map[load.Namespace]bool), Backlog: make(map[uint64]uint32)}
	acceptors := acceptors{accepted: accepted}
	var h Holder
	err := eachListed(collection, func(raw *bpf.SynspyHolder) {
		ns := load.Namespace{ID: raw.NetId, Net: raw.Net, Inode: raw.Listener.Netns}
		kind := bpf.SynspyHolderKind(raw.Kind)
		listens := kind == bpf.SynspyHolderKindHOLDER_LISTENER
		found.Namespaces[ns] = found.Namespaces[ns] || listens
		acceptors.come(raw.Pid, raw.Start)
		switch {
		case listens:
			h = holderOf(raw, h.Comm)
			l := &h.Listener
			if l.Accept.Len > 0 {
				found.Backlog[l.Socket] = l.Accept.Len
			}
			if mayWait != nil && mayWait(l.NetNS) {
				found.Sleepable = append(found.Sleepable, Held{h.PID, l.Inode, l.Socket})
			}
			acceptors.holds(l.Socket, l.NetNS, l.Port, l.Addr)
			f(&h)
		case kind == bpf.SynspyHolderKindHOLDER_CHILD:
			l := &raw.Listener
			acceptors.has(uint64(l.Netns), l.Port, message.Address(l.Addr))
		}
	})
	if err != nil {
		return &Found{}, err
	}
	acceptors.come(0, 0) // ends the last one
	return found, nil
}

// holderOf decodes a holder whose name is likely that one: a process that holds many listeners comes
// with all of them in a row.
func holderOf(raw *bpf.SynspyHolder, likely string) Holder {
	return Holder{PID: raw.Pid, Start: raw.Start, Comm: message.TextLike(raw.Comm, likely),
		Listener: message.ListenerOf(&raw.Listener)}
}

// eachListed hands over what the iterator over open files writes.
func eachListed(collection *ebpf.Collection, f func(*bpf.SynspyHolder)) error {
	program, ok := collection.Programs[holdersProgram]
	if !ok {
		return ErrNoIterator
	}
	iter, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return fmt.Errorf("attach iterator: %w", err)
	}
	defer iter.Close()
	stream, err := iter.Open()
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	defer stream.Close()
	if err := eachHolder(stream, f); err != nil {
		return fmt.Errorf("read iterator: %w", err)
	}
	return nil
}

// holdersBuffer is what the kernel gives at once: the buffer of an iterator has eight
// pages (bpf_seq_read).
const holdersBuffer = 32 << 10

// eachHolder decodes what the iterator over open files writes, one by one: with many
// listeners all of it together would be much of the memory that synspy ever takes. What
// f is given is overwritten by the next one.
func eachHolder(from io.Reader, f func(*bpf.SynspyHolder)) error {
	var h bpf.SynspyHolder
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	for buffered := bufio.NewReaderSize(from, holdersBuffer); ; {
		if _, err := io.ReadFull(buffered, raw); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err // of half a one, too
		}
		f(&h)
	}
}

// holdersProgram lists open files; it is read, not attached.
const holdersProgram = "iter_task_file"

// Lister lists listeners and who holds them. It attaches nothing: the kernel's
// packets do not meet it.
type Lister struct{ collection *ebpf.Collection }

// OpenLister loads the one program that this takes. btfFile is as in Gather. The error
// is ErrNoIterator where this kernel has no such iterator.
func OpenLister(btfFile string) (*Lister, error) {
	here, err := facts.Gather(btfFile)
	if err != nil {
		return nil, err
	}
	if here.BTF != nil {
		return nil, here.BTF
	}
	if _, ok := here.Functions["bpf_iter_task_file"]; !ok {
		return nil, ErrNoIterator
	}
	collection, _, err := load.SomePrograms(here, plan.Plan{}, load.Config{RingSize: load.SmallestRing}, []string{holdersProgram})
	if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
		err = fmt.Errorf("%w: %w", facts.ErrVerifier, err)
		if load.MayNotRead(verifier.Log) {
			err = fmt.Errorf("%w: %w", load.ErrMayNotRead, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Lister{collection}, nil
}

// Each hands over who holds which listening socket, in every namespace. What f is given is overwritten by the next one.
func (l *Lister) Each(f func(*Holder)) error {
	return Each(l.collection, f)
}

// Each is Walk for who needs no more. The error is ErrNoIterator where it cannot be listed.
func Each(collection *ebpf.Collection, f func(*Holder)) error {
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
