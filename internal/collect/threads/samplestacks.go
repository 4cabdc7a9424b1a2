// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// addStacks gives the samples of a thread the stacks of user space that go with them:
// while it slept, the one that it slept in at the same place of the kernel; while it ran,
// those that it was seen in, each as often as it was.
func addStacks(t *evidence.Thread, stacks []event.Stack, watched func(*evidence.Sample) bool) {
	asleep := make(map[string][]string)
	longest := make(map[string]time.Duration)
	var running []event.Stack
	var runs uint64
	for i := range stacks {
		s := &stacks[i]
		if s.PID != t.PID || s.TID != t.TID {
			continue
		}
		inKernel, inUser := split(s.Frames)
		if len(inUser) == 0 {
			continue
		}
		if s.State.OnCPU() {
			running = append(running, *s)
			runs += s.Samples
			continue
		}
		for _, key := range placesOf(inKernel) {
			if d := s.Duration(); d > longest[key] {
				asleep[key], longest[key] = inUser, d
			}
		}
	}
	slices.SortStableFunc(running,
		func(a, b event.Stack) int { return cmp.Compare(b.Samples, a.Samples) })
	ran, given := uint64(0), uint64(0)
	for i := range t.Samples {
		if t.Samples[i].State == "R" && watched(&t.Samples[i]) {
			ran++
		}
	}
	for i := range t.Samples {
		smp := &t.Samples[i]
		switch {
		case smp.State == "R" && runs > 0 && watched(smp):
			_, smp.User = split(nthSample(running, (2*given+1)*runs/(2*ran)).Frames)
			smp.OnCPU = true
			given++
		case smp.State == "S" || smp.State == "D":
			for _, key := range placesOf(smp.Kernel) {
				if user := asleep[key]; user != nil {
					smp.User = user
					break
				}
			}
		}
	}
}

// nthSample finds the stack that has the nth of all their samples.
func nthSample(stacks []event.Stack, n uint64) *event.Stack {
	for i := range stacks {
		if n < stacks[i].Samples {
			return &stacks[i]
		}
		n -= stacks[i].Samples
	}
	return &stacks[len(stacks)-1]
}

// placesOf lists the functions of a kernel stack that tell where a thread sleeps: not the
// scheduler's, which all have in common.
func placesOf(stack []string) (places []string) {
	for _, frame := range stack {
		name, _, _ := strings.Cut(frame, "+")
		if strings.Contains(name, "schedule") || strings.HasPrefix(name, "__switch") ||
			name == "" {
			continue
		}
		places = append(places, name)
		if len(places) == 3 {
			break
		}
	}
	return places
}

func split(frames []event.Frame) (inKernel, inUser []string) {
	for _, f := range frames {
		if f.Kernel {
			inKernel = append(inKernel, f.String())
		} else {
			inUser = append(inUser, f.String())
		}
	}
	return inKernel, inUser
}
