// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"path"
	"time"
)

// ThreadState says what a thread was doing when its stack was taken.
type ThreadState string

// The states. Those but the first are of threads that left a CPU.
const (
	ThreadRunning         ThreadState = "running"         // seen on a CPU
	ThreadRunnable        ThreadState = "runnable"        // preempted, or gave way: it waited for a CPU
	ThreadSleeping        ThreadState = "sleeping"        // until something happens or a signal comes
	ThreadUninterruptible ThreadState = "uninterruptible" // mostly storage and locks
	ThreadStopped         ThreadState = "stopped"         // by a signal or a debugger
)

// OnCPU reports whether the thread was on a CPU.
func (s ThreadState) OnCPU() bool { return s == ThreadRunning }

// Stack is one stack of one thread in one state, and what was seen of it. All strings in
// it come from outside and are hostile, but valid UTF-8.
type Stack struct {
	PID   uint32      `json:"pid"`
	TID   uint32      `json:"tid"`
	Comm  string      `json:"comm,omitempty"` // the thread's
	State ThreadState `json:"state"`
	// Frames are innermost first, the kernel's before those of user space. Which of them
	// could not be had, Missing says.
	Frames []Frame `json:"frames,omitempty"`
	// Missing says why the frames of user space are not here, or not all of them.
	Missing Missing `json:"missing,omitempty"`
	// Samples is how often it was seen on a CPU; Hz tells how many samples a second were taken.
	Samples uint64 `json:"samples,omitempty"`
	Hz      uint32 `json:"hz,omitempty"`
	// Times is how often the thread came back to a CPU, NS how long it was away in all, in
	// nanoseconds, with what is not over yet; RunDelayNS is the part of it that it waited for a
	// CPU, known once the thread left again; LongestNS is the longest time.
	Times      uint64 `json:"times,omitempty"`
	NS         uint64 `json:"ns,omitempty"`
	RunDelayNS uint64 `json:"run_delay_ns,omitempty"`
	LongestNS  uint64 `json:"longest_ns,omitempty"`
	// OngoingNS is how long it has been away this time, zero if it is back.
	OngoingNS uint64 `json:"ongoing_ns,omitempty"`
	// Before tells that it left before anyone watched: NS and OngoingNS count from then, and
	// are too little.
	Before bool `json:"before,omitempty"`
}

// Missing says why a stack has not all its frames of user space.
type Missing string

// The reasons. Where none is given, the stack may still end early: code that keeps no frame
// pointers may look like the outermost.
const (
	MissingUser    Missing = "user_stack_unknown" // it was not taken, or is no memory
	MissingCallers Missing = "no_frame_pointers"  // the code does not say who called it
	MissingDeep    Missing = "too_deep"           // the outermost frames were not kept
	MissingLost    Missing = "too_many_stacks"    // there was no place for it
)

// Duration is how long the thread was seen in the state: off a CPU exactly, on it by
// samples.
func (s *Stack) Duration() time.Duration {
	if !s.State.OnCPU() {
		return time.Duration(s.NS)
	}
	if s.Hz == 0 {
		return 0
	}
	return time.Duration(s.Samples) * time.Second / time.Duration(s.Hz)
}

// Frame is a place in code. Without a Function it is only known in which module it is, and
// without a Module not even that.
type Frame struct {
	// Function is the name as its symbol table has it, C++ and Rust names without parameters.
	Function string `json:"function,omitempty"`
	// Module is the file as the process knows it, "[vdso]", "[jit]" for code that the process
	// described in a perf map, or, of kernel code, "[kernel]" or a module's name in brackets.
	Module string `json:"module,omitempty"`
	// Offset is from the function's start, else from the module's, in bytes.
	Offset uint64 `json:"offset,omitempty"`
	// Address is given where nothing else is known.
	Address uint64 `json:"address,omitempty"`
	Kernel  bool   `json:"kernel,omitempty"`
	// Called tells that the function was called by the next frame's, as that one's code says,
	// and has not returned, while the frame itself was not seen: the innermost function keeps
	// no frame pointer. It may have gone on to another function by a jump. It has no Offset.
	Called bool `json:"called,omitempty"`
}

// String returns the frame as "function+0x1f (module)". It does not escape anything.
func (f Frame) String() string {
	switch {
	case f.Called:
		return fmt.Sprintf("%s (%s)", f.Function, path.Base(f.Module))
	case f.Function != "" && f.Module != "":
		return fmt.Sprintf("%s+%#x (%s)", f.Function, f.Offset, path.Base(f.Module))
	case f.Function != "":
		return fmt.Sprintf("%s+%#x", f.Function, f.Offset)
	case f.Module != "":
		return fmt.Sprintf("%s+%#x", path.Base(f.Module), f.Offset)
	}
	return fmt.Sprintf("%#x", f.Address)
}
