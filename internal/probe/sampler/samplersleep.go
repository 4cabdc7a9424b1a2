// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
)

// sleeper is a thread that left before it was watched. A server that is stuck for good
// is one, and sched_switch would never show it.
type sleeper struct {
	left   uint64 // as the thread's row has it
	user   stack
	kernel []uint64
}

// maxSleepers bounds how many are kept.
const maxSleepers = 1 << 13

// findSleepers books the threads of watched processes that sleep, with their stacks.
func (s *Sampler) findSleepers() error {
	iter, err := link.AttachIter(link.IterOptions{Program: s.sleepers})
	if err != nil {
		return fmt.Errorf("attach iterator over threads: %w", err)
	}
	defer iter.Close()
	stream, err := iter.Open()
	if err != nil {
		return fmt.Errorf("open iterator over threads: %w", err)
	}
	defer stream.Close()
	var found bpf.SamplerSleeper
	raw := make([]byte, unsafe.Sizeof(found))
	for {
		if _, err := io.ReadFull(stream, raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read iterator over threads: %w", err)
		}
		if _, err := binary.Decode(raw, binary.NativeEndian, &found); err != nil {
			return fmt.Errorf("decode thread: %w", err)
		}
		if err := s.meet(&found); err != nil {
			return err
		}
	}
}

// meet keeps the stacks of a thread, if it slept all the while that they were taken.
func (s *Sampler) meet(found *bpf.SamplerSleeper) error {
	if len(s.before) >= maxSleepers {
		return nil
	}
	known := sleeper{left: found.Left}
	if n := min(found.KernelLength, uint64(len(found.Kernel))); n > 0 {
		known.kernel = append(known.kernel, found.Kernel[:n]...)
	}
	if found.Ip != 0 {
		known.user = walkUser(found.Tgid, found.Ip, found.Sp, found.Bp, s.frames)
	}
	var thread bpf.SamplerThread
	err := s.maps.Maps[bpf.SamplerMapThreads].Lookup(found.Tid, &thread)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up thread %d: %w", found.Tid, err)
	}
	if thread.Left != found.Left {
		known.user = stack{} // it ran: who knows what was read
	}
	s.before[found.Tid] = known
	return nil
}

// walkUser follows frame pointers, as the kernel does for a thread that runs. The thread is not
// stopped, only its memory is read.
func walkUser(pid uint32, ip, sp, bp uint64, frames int) stack {
	found := stack{addresses: []uint64{ip}}
	var frame [2]uint64 // the caller's frame, and where to return to
	local := []unix.Iovec{{Base: (*byte)(unsafe.Pointer(&frame)),
		Len: uint64(unsafe.Sizeof(frame))}}
	defer runtime.KeepAlive(&frame)
	for at := bp; at >= sp && at%8 == 0; at = frame[0] {
		remote := []unix.RemoteIovec{{Base: uintptr(at), Len: int(unsafe.Sizeof(frame))}}
		n, err := unix.ProcessVMReadv(int(pid), local, remote, 0)
		if err != nil || n != int(unsafe.Sizeof(frame)) || frame[1] == 0 {
			break
		}
		if len(found.addresses) == frames {
			found.cut = true
			break
		}
		found.addresses = append(found.addresses, frame[1])
		if frame[0] <= at { // stacks grow down
			break
		}
	}
	return found
}
