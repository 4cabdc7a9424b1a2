// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// Stack is addresses to be named, innermost first. The first one is where a thread was, the others
// are where calls return to.
type Stack struct {
	PID          uint32
	User, Kernel []uint64
}

// Named is a stack with names: the kernel's frames, then those of user space.
type Named struct {
	Frames []event.Frame
	// Cut tells that the frames of user space end where the next address was no place that a
	// call returns to: the code keeps no frame pointers, and nobody knows who called.
	Cut bool
}

// fileTimeout bounds how long one file is read: it may be on a dead network.
const fileTimeout = 5 * time.Second

// Resolve names stacks, in their order. Processes that were not watched are now. What cannot be
// had, or not before the context ends, stays unnamed.
func (s *Symbols) Resolve(ctx context.Context, stacks []Stack) []Named {
	r := resolver{Symbols: s, places: make(map[uint32]map[uint64]spot)}
	addresses := make(map[uint32][]uint64)
	var inKernel []uint64
	for _, stack := range stacks {
		for depth, address := range stack.User {
			addresses[stack.PID] = append(addresses[stack.PID], called(depth, address))
		}
		for depth, address := range stack.Kernel {
			inKernel = append(inKernel, called(depth, address))
		}
	}
	r.locate(ctx, addresses)
	symbols, err := kernel.SymbolsAt(inKernel)
	if err != nil {
		s.log.Debug("naming the kernel's code", "err", err)
	}
	named := make([]Named, 0, len(stacks))
	for _, stack := range stacks {
		named = append(named, r.name(stack, symbols))
	}
	return named
}

// called is the address that tells which function a frame is in: where it returns to may
// be the next function already.
func called(depth int, address uint64) uint64 {
	if depth == 0 || address == 0 {
		return address
	}
	return address - 1
}

// spot is what an address of a process is.
type spot struct {
	mapping *mapping
	place   place  // without a name if that is not known
	offset  uint64 // in the module, as its file counts addresses
	jit     bool   // named by a perf map
	// stray tells that no call ends just here, so that it is no place that one returns to.
	stray  bool
	callee string // whom the call that ends just here calls
}

type resolver struct {
	*Symbols
	places map[uint32]map[uint64]spot
}

// locate finds out about all addresses, file by file.
func (r *resolver) locate(ctx context.Context, addresses map[uint32][]uint64) {
	offsets := make(map[fileID][]uint64)
	for pid, list := range addresses {
		if err := r.Watch(pid); err != nil {
			r.log.Debug("naming the code of a process", "pid", pid, "err", err)
		}
		p := r.processes[pid]
		if p == nil {
			continue
		}
		spots := make(map[uint64]spot, len(list))
		r.places[pid] = spots
		for _, address := range list {
			m := find(p.mappings, address)
			if m == nil {
				continue
			}
			spots[address] = spot{mapping: m, offset: address - m.start + m.offset}
			if m.inode != 0 {
				id := fileID{m.device, m.inode}
				offsets[id] = append(offsets[id], address-m.start+m.offset)
			}
		}
	}
	code := make(map[fileID]fileCode, len(offsets))
	for _, id := range slices.SortedFunc(maps.Keys(offsets), compareFiles) {
		code[id] = r.file(ctx, id, offsets[id])
	}
	for pid, spots := range r.places {
		var unnamed []uint64
		for address, at := range spots {
			if known, ok := code[fileID{at.mapping.device,
				at.mapping.inode}][at.offset]; ok && at.mapping.inode != 0 {
				at.place, at.offset, at.stray, at.callee = known.place,
					known.address, known.stray, known.callee
			} else if at.mapping.path == vdsoName {
				at.place, at.offset = vdso(ctx, at.mapping, address)
			}
			if at.place.name == "" {
				unnamed = append(unnamed, address)
			}
			spots[address] = at
		}
		r.perfMap(ctx, pid, unnamed)
	}
}

func compareFiles(a, b fileID) int {
	switch {
	case a.inode != b.inode && a.inode < b.inode:
		return -1
	case a.inode != b.inode:
		return 1
	case a.device < b.device:
		return -1
	case a.device > b.device:
		return 1
	}
	return 0
}

// perfMap names what the process says that it compiled.
func (r *resolver) perfMap(ctx context.Context, pid uint32, addresses []uint64) {
	p := r.processes[pid]
	if len(addresses) == 0 {
		return
	}
	slices.Sort(addresses)
	found, err := within(ctx, func(ctx context.Context) (map[uint64]place, error) {
		file, err := openPerfMap(p.dir, p.root)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return readPerfMap(ctx, file, addresses)
	})
	if err != nil {
		r.log.Debug("reading a perf map", "pid", pid, "err", err)
	}
	for address, place := range found {
		at := r.places[pid][address]
		at.place, at.jit, at.stray = place, true, false
		r.places[pid][address] = at
	}
}

// within calls f with a bounded context, and does not wait for it any longer than that: a read may
// hang.
func within[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		defer cancel()
		value, err := f(ctx)
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-done: // both at once
		return a.value, a.err
	default:
		var none T
		return none, ctx.Err()
	}
}

func (r *resolver) name(stack Stack, symbols map[uint64]kernel.Symbol) Named {
	var named Named
	for depth, address := range stack.Kernel {
		named.Frames = append(named.Frames, kernelFrame(depth, address, symbols))
	}
	named.Frames = named.Frames[scheduler(named.Frames):]
	for depth, address := range stack.User {
		key := called(depth, address)
		at, known := r.places[stack.PID][key]
		if depth > 0 && (!known && r.places[stack.PID] != nil || at.stray) {
			named.Cut = true
			break
		}
		if leaf := len(named.Frames) - 1; depth == 1 && at.callee != "" &&
			readable(at.callee) != named.Frames[leaf].Function {
			named.Frames = append(named.Frames,
				event.Frame{Function: readable(at.callee),
					Module: at.mapping.module(), Called: true})
		}
		named.Frames = append(named.Frames, userFrame(at, address, address-key))
	}
	return named
}

func kernelFrame(depth int, address uint64, symbols map[uint64]kernel.Symbol) event.Frame {
	key := called(depth, address)
	symbol, ok := symbols[key]
	if !ok {
		return event.Frame{Kernel: true, Address: address}
	}
	module := "kernel"
	if symbol.Module != "" {
		module = symbol.Module
	}
	return event.Frame{Kernel: true, Function: Clean(symbol.Name), Module: "[" + Clean(module) +
		"]", Offset: symbol.Offset + address - key}
}

// userFrame makes a frame of a spot. skipped is what was taken off the address to find it.
func userFrame(at spot, address, skipped uint64) event.Frame {
	switch {
	case at.mapping == nil:
		return event.Frame{Address: address}
	case at.jit:
		return event.Frame{Function: Clean(at.place.name), Module: perfMapModule,
			Offset: at.place.offset + skipped}
	case at.place.name != "":
		return event.Frame{Function: readable(at.place.name), Module: at.mapping.module(),
			Offset: at.place.offset + skipped}
	case at.mapping.path != "":
		return event.Frame{Module: at.mapping.module(), Offset: at.offset + skipped}
	}
	return event.Frame{Address: address}
}

// scheduler counts how many of the innermost frames are the scheduler's, and the tracer's
// in it: of a thread that left a CPU that is where each stack begins.
func scheduler(frames []event.Frame) int {
	const depth = 12
	for i, frame := range frames[:min(depth, len(frames))] {
		if frame.Function != "__schedule" {
			continue
		}
		for i++; i < len(frames) && frames[i].Function == "schedule"; i++ {
		}
		if i == len(frames) {
			return i - 1 // there is nothing else to show
		}
		return i
	}
	return 0
}
