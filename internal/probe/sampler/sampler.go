// SPDX-License-Identifier: Apache-2.0

// Package sampler sees what threads do: a BPF program looks at those that leave a CPU, and at those
// that run. It gives plain values.
package sampler

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
)

// SamplerHz is how many samples a second are taken on each CPU. It is no round number, so as
// not to keep step with what is sampled.
const SamplerHz = 99

// MaxWatched is how many processes a Sampler watches at most.
const MaxWatched = 1024

// ErrCannotSample says that this kernel lets threads be seen neither on a CPU nor off it.
var ErrCannotSample = errors.New("this kernel lets threads be sampled neither on a CPU nor off it")

// Sampler sees what the threads of some processes do, on a CPU and off it. It is made by
// OpenSampler, told whom to watch by Watch, read by Read, and freed by Close. Its methods may be
// called from several goroutines.
type Sampler struct {
	log      *slog.Logger
	maps     *ebpf.Collection
	programs []*ebpf.Collection
	switches *ebpf.Program // nil: absences are not seen
	sleepers *ebpf.Program // nil: threads that sleep already have no stacks
	attached link.Link     // of switches; nil while nobody is watched
	clocks   []int         // descriptors of perf events, one a CPU
	ticking  bool          // the clocks are
	support  SamplerSupport
	frames   int // in a stack at most

	mu      sync.Mutex
	watched map[uint32]bool
	bits    map[uint32]uint64  // words that are not zero, or were not
	before  map[uint32]sleeper // by thread
	cut     []cutShort
}

// cutShort is an absence of which nobody saw the end, for the process was not watched any more.
type cutShort struct {
	thread bpf.SamplerThread
	until  uint64
}

// SamplerSupport says which of its parts a sampler has, and why not the others.
type SamplerSupport struct {
	OnCPU    facts.Support // samples
	OffCPU   facts.Support // absences
	Sleepers facts.Support // stacks of threads that left before they were watched
	// SleepersUser reports whether these have frames of user space too: 5.15.
	SleepersUser bool
	// Delay reports whether absences tell how long the thread waited for a CPU.
	Delay bool
}

// Late reports whether a watch that begins while threads sleep sees as much of them as one that
// saw them fall asleep.
func (s SamplerSupport) Late() bool {
	return !s.OffCPU.Yes() || s.Sleepers.Yes() && s.SleepersUser
}

// Sample is one stack of one thread in one state.
type Sample struct {
	TGID, TID uint32
	Comm      string
	State     event.ThreadState
	Times     uint64 // samples on a CPU, or returns to one
	// Away is how long it was off a CPU with this stack, with Ongoing, which is not over yet.
	// Delay is the part of it that it waited for a CPU, as far as that is known.
	Away, Ongoing, Longest, Delay time.Duration
	Before                        bool // it left before it was watched: Away counts from then
	// User and Kernel are addresses, innermost first. The first one is where the thread was, the
	// others are where calls return to.
	User, Kernel []uint64
	UserCut      bool // there are more frames than were kept
	UserLost     bool // there were too many different stacks
}

// SamplerLoss is what a sampler's tables had no room for.
type SamplerLoss struct {
	Stacks uint64 // samples and absences without one of their stacks
	Counts uint64 // samples and absences not counted at all
}

// OpenSampler puts the sampler into the kernel; it watches nobody yet. btfFile, if not empty,
// replaces the kernel's own type information. What this kernel refuses is left out and said by
// Support; if everything is refused, the error is ErrCannotSample.
func OpenSampler(btfFile string, log *slog.Logger) (*Sampler, error) {
	s := &Sampler{log: log, watched: make(map[uint32]bool), bits: make(map[uint32]uint64),
		before: make(map[uint32]sleeper)}
	if err := s.open(btfFile); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Support says what this sampler can see.
func (s *Sampler) Support() SamplerSupport { return s.support }

// Watch replaces the set of processes watched. What was seen of others is kept. Threads that sleep
// already are looked up once, when their process is new in the set. While nobody is watched nothing is attached, and no
// thread of the machine pays for it.
func (s *Sampler) Watch(pids []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := make(map[uint32]bool, len(pids))
	for _, pid := range pids {
		wanted[pid] = true
	}
	if len(wanted) > MaxWatched {
		return fmt.Errorf("watch processes: %d are more than %d", len(wanted), MaxWatched)
	}
	if len(wanted) > 0 {
		if err := s.wake(); err != nil {
			return err
		}
	} else if err := s.rest(); err != nil {
		return err
	}
	for _, pid := range slices.Collect(maps.Keys(s.watched)) {
		if wanted[pid] {
			continue
		}
		if err := s.maps.Maps[bpf.SamplerMapWatched].Delete(pid); err != nil &&
			!errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("stop watching process %d: %w", pid, err)
		}
		delete(s.watched, pid)
		if err := s.forget(pid); err != nil {
			return err
		}
	}
	fresh := false
	for pid := range wanted {
		if s.watched[pid] {
			continue
		}
		if err := s.maps.Maps[bpf.SamplerMapWatched].Put(pid, uint32(1)); err != nil {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
		s.watched[pid], fresh = true, true
	}
	if err := s.setWatchedBits(); err != nil {
		return err
	}
	if fresh && s.sleepers != nil {
		return s.findSleepers()
	}
	return nil
}

// wake attaches what sees threads.
func (s *Sampler) wake() error {
	if s.switches != nil && s.attached == nil {
		attached, err := link.AttachTracing(link.TracingOptions{Program: s.switches})
		if err != nil {
			return fmt.Errorf("attach to sched_switch: %w", err)
		}
		s.attached = attached
	}
	return s.tick(true)
}

// rest detaches it.
func (s *Sampler) rest() error {
	err := s.tick(false)
	if s.attached != nil {
		err = errors.Join(err, s.attached.Close())
		s.attached = nil
	}
	return err
}

// tick starts the clocks, or stops them.
func (s *Sampler) tick(on bool) error {
	request := uint(unix.PERF_EVENT_IOC_DISABLE)
	if on {
		request = unix.PERF_EVENT_IOC_ENABLE
	}
	if on == s.ticking {
		return nil
	}
	for _, fd := range s.clocks {
		if err := unix.IoctlSetInt(fd, request, 0); err != nil {
			return fmt.Errorf("start or stop the clock of a CPU: %w", err)
		}
	}
	s.ticking = on
	return nil
}

// setWatchedBits tells by bits which processes may be watched: see watches in bpf/sampler.bpf.c.
func (s *Sampler) setWatchedBits() error {
	bits := s.maps.Maps[bpf.SamplerMapWatchedBits]
	words := make([]uint64, bits.MaxEntries())
	for pid := range s.watched {
		words[int(pid/64)%len(words)] |= 1 << (pid % 64)
	}
	for i, word := range words {
		if word == s.bits[uint32(i)] {
			continue
		}
		if err := bits.Put(uint32(i), word); err != nil {
			return fmt.Errorf("watch processes: %w", err)
		}
		s.bits[uint32(i)] = word
	}
	return nil
}

// forget ends the absences of a process that is not watched any more: nobody would see them end.
func (s *Sampler) forget(pid uint32) error {
	threads := s.maps.Maps[bpf.SamplerMapThreads]
	now := kernel.Monotonic()
	return load.Everything(threads, func(tid uint32, thread *bpf.SamplerThread) error {
		if thread.Activity.Tgid != pid {
			return nil
		}
		if thread.Left != 0 && thread.Left < now && len(s.cut) < maxSleepers {
			s.cut = append(s.cut, cutShort{*thread, now})
		}
		if err := threads.Delete(tid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("stop watching thread %d: %w", tid, err)
		}
		return nil
	})
}

// Read returns all that was seen since the sampler was opened.
func (s *Sampler) Read() ([]Sample, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := sampleReader{sampler: s, stacks: make(map[bpf.SamplerNoStack]stack),
		at: make(map[bpf.SamplerActivity]int)}
	err := load.Everything(s.maps.Maps[bpf.SamplerMapActivities],
		func(key bpf.SamplerActivity, count *bpf.SamplerActivityTotal) error {
			sample, err := r.sample(key, count.Comm)
			if err != nil {
				return err
			}
			sample.Times += count.Times
			sample.Away += time.Duration(count.Ns)
			sample.Longest = max(sample.Longest, time.Duration(count.Longest))
			sample.Delay = min(sample.Away, time.Duration(count.Delay))
			return nil
		})
	if err != nil {
		return nil, err
	}
	for i := range s.cut {
		sample, err := r.sample(s.cut[i].thread.Activity, s.cut[i].thread.Comm)
		if err != nil {
			return nil, err
		}
		away := time.Duration(s.cut[i].until - s.cut[i].thread.Left)
		sample.Away += away
		sample.Longest = max(sample.Longest, away)
	}
	err = load.Everything(s.maps.Maps[bpf.SamplerMapThreads],
		func(_ uint32, thread *bpf.SamplerThread) error {
			now := kernel.Monotonic() // after it was read
			if thread.Left == 0 || thread.Left > now {
				return nil
			}
			sample, err := r.sample(thread.Activity, thread.Comm)
			if err != nil {
				return err
			}
			sample.Ongoing = time.Duration(now - thread.Left)
			sample.Away += sample.Ongoing
			sample.Longest = max(sample.Longest, sample.Ongoing)
			return nil
		})
	if err != nil {
		return nil, err
	}
	return r.samples, nil
}

// Loss returns what was lost since the sampler was opened.
func (s *Sampler) Loss() (SamplerLoss, error) {
	var loss SamplerLoss
	if err := s.maps.Variables[bpf.SamplerVarCollisions].Get(&loss.Stacks); err != nil {
		return loss, fmt.Errorf("read what the sampler lost: %w", err)
	}
	if err := s.maps.Variables[bpf.SamplerVarLost].Get(&loss.Counts); err != nil {
		return loss, fmt.Errorf("read what the sampler lost: %w", err)
	}
	return loss, nil
}

// sampleReader puts samples together.
type sampleReader struct {
	sampler *Sampler
	samples []Sample
	at      map[bpf.SamplerActivity]int // in samples
	stacks  map[bpf.SamplerNoStack]stack
}

type stack struct {
	addresses []uint64
	cut       bool
}

// sample returns the one of that key. It is valid until the next call.
func (r *sampleReader) sample(key bpf.SamplerActivity, comm [16]int8) (*Sample, error) {
	if i, ok := r.at[key]; ok {
		return &r.samples[i], nil
	}
	sample := Sample{TGID: key.Tgid, TID: key.Tid, Comm: message.Text(comm),
		State:  stateOf(key.State),
		Before: key.User == bpf.SamplerNoStackSTACK_BEFORE, UserLost: key.User == bpf.SamplerNoStackSTACK_LOST}
	if sample.Before {
		known := r.sampler.before[key.Tid]
		sample.User, sample.Kernel, sample.UserCut = known.user.addresses, known.kernel, known.user.cut
	} else {
		user, err := r.stack(key.User)
		if err != nil {
			return nil, err
		}
		kernel, err := r.stack(key.Kernel)
		if err != nil {
			return nil, err
		}
		sample.User, sample.UserCut, sample.Kernel = user.addresses, user.cut, kernel.addresses
	}
	r.at[key] = len(r.samples)
	r.samples = append(r.samples, sample)
	return &r.samples[len(r.samples)-1], nil
}

func (r *sampleReader) stack(id bpf.SamplerNoStack) (stack, error) {
	if id < 0 {
		return stack{}, nil
	}
	if known, ok := r.stacks[id]; ok {
		return known, nil
	}
	raw := make([]uint64, r.sampler.frames)
	if err := r.sampler.maps.Maps[bpf.SamplerMapStacks].Lookup(uint32(id), &raw); err != nil {
		return stack{}, fmt.Errorf("read stack %d: %w", id, err)
	}
	length := slices.Index(raw, 0)
	if length < 0 {
		length = len(raw)
	}
	known := stack{raw[:length], length == len(raw)}
	r.stacks[id] = known
	return known, nil
}

func stateOf(state bpf.SamplerThreadState) event.ThreadState {
	switch state {
	case bpf.SamplerThreadStateTHREAD_RUNNING:
		return event.ThreadRunning
	case bpf.SamplerThreadStateTHREAD_RUNNABLE:
		return event.ThreadRunnable
	case bpf.SamplerThreadStateTHREAD_SLEEPING:
		return event.ThreadSleeping
	case bpf.SamplerThreadStateTHREAD_UNINTERRUPTIBLE:
		return event.ThreadUninterruptible
	case bpf.SamplerThreadStateTHREAD_STOPPED:
		return event.ThreadStopped
	}
	return ""
}
