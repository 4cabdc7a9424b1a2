// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// usual is the call that threads were seen in most while they did something under pressure, and the
// stack.
func (s *Subject) usual(did Doing) (call string, frames []string) {
	calls, texts := map[string]int{}, map[string]int{}
	for _, smp := range s.samples(did) {
		if smp.Syscall != "" {
			calls[smp.Syscall]++
		}
		if stack := smp.Stack(); len(stack) > 0 {
			texts[strings.Join(stack, "\n")]++
		}
	}
	if text := commonest(texts); text != "" {
		frames = strings.Split(text, "\n")
	}
	return commonest(calls), frames
}

// place is the innermost function that most of these samples have in them: leaves differ, and every
// stack begins in main.
func (s *Subject) place(did Doing, not string) string {
	in, depth, all := map[string]int{}, map[string]int{}, 0
	for _, smp := range s.samples(did) {
		stack := smp.Stack()
		if len(stack) == 0 {
			continue
		}
		all++
		here := map[string]bool{}
		for i, frame := range stack {
			frame = Function(frame)
			if !here[frame] && !wrapper(frame) && !nameless(frame) {
				here[frame] = true
				in[frame]++
				depth[frame] += i
			}
		}
	}
	best := ""
	mean := func(frame string) float64 { return float64(depth[frame]) / float64(in[frame]) }
	for frame, n := range in {
		switch {
		case float64(n) < 0.6*float64(all) || not != "" && strings.Contains(frame, not):
		case best == "" || mean(frame) < mean(best) || mean(frame) == mean(best) &&
			frame < best:
			best = frame
		}
	}
	return best
}

// Function takes the offset out of a frame, since what a loop is in shows at many of them, and the
// shapes that Go's compiler names in the place of type arguments.
func Function(frame string) string {
	if from, to := strings.IndexByte(frame, '['), strings.LastIndexByte(frame,
		']'); from >= 0 && to > from && strings.Contains(frame[from:to], "go.shape.") {
		frame = frame[:from] + "[...]" + frame[to+1:]
	}
	name, rest, ok := strings.Cut(frame, "+0x")
	if !ok {
		return frame
	}
	if _, module, ok := strings.Cut(rest, " "); ok {
		name += " " + module
	}
	return name
}

// wrapper reports whether a function only leads to the kernel, or to the code that matters:
// everybody has it on the stack.
func wrapper(frame string) bool {
	for _, prefix := range []string{"internal/runtime/syscall", "runtime/internal/syscall",
		"syscall.", "golang.org/x/sys/", "runtime."} {
		if strings.HasPrefix(frame, prefix) {
			return true
		}
	}
	return false
}

// nameless reports whether of a frame only the address is known, or the file that its code is in:
// "libc.so.6+0x85f16".
func nameless(frame string) bool {
	return strings.HasPrefix(frame, "0x") || strings.HasSuffix(frame, ".so") ||
		strings.Contains(frame, ".so.") && !strings.Contains(frame, " ")
}

// samples are those under pressure that show threads doing this.
func (s *Subject) samples(did Doing) []evidence.Sample {
	var out []evidence.Sample
	s.EachSample(func(_ evidence.Thread, smp evidence.Sample, what Doing) {
		// One that ran and sleeps at the moment shows a stack that it does not compute in.
		if what == did && s.UnderPressure(smp) && (did != doingBusy || smp.OnCPU ||
			smp.State == "R") {
			out = append(out, smp)
		}
	})
	return out
}

// sure is proven where hardly a sample says otherwise, and all were sampled that may accept.
func (s *Subject) sure(did Doing) event.Confidence {
	if s.share(did) >= 0.8 && s.allSampled() {
		return event.ConfidenceProven
	}
	return event.ConfidenceLikely
}

// allSampled reports whether a thread was looked at of each process that is said to accept.
func (s *Subject) allSampled() bool {
	return !slices.ContainsFunc(s.accepting(), func(p event.Process) bool {
		return !slices.ContainsFunc(s.Threads,
			func(t evidence.Thread) bool {
				return t.PID == p.PID &&
					len(t.Samples) > 0
			})
	})
}

// commonest breaks ties by name, so that the same evidence gives the same words.
func commonest(n map[string]int) string {
	best := ""
	for name, count := range n {
		if count > n[best] || count == n[best] && name < best {
			best = name
		}
	}
	return best
}
