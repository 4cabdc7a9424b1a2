// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// samplerHelper makes the test binary a process to be sampled.
const samplerHelper = "SYNSPY_SAMPLER_HELPER"

// TestSamplerHelper is no test: a process with one thread that spins, one that naps, and one that sleeps.
func TestSamplerHelper(t *testing.T) {
	if os.Getenv(samplerHelper) == "" {
		return
	}
	say := make(chan string)
	thread := func(what string, do func()) {
		go func() {
			runtime.LockOSThread()
			say <- fmt.Sprintf("%s %d\n", what, unix.Gettid())
			for {
				do()
			}
		}()
		fmt.Print(<-say)
	}
	nap := func(d time.Duration) func() {
		return func() {
			request := unix.NsecToTimespec(int64(d))
			_ = unix.Nanosleep(&request, nil) // interrupted: it naps again
		}
	}
	thread("sleeps", nap(time.Hour))
	thread("naps", nap(5*time.Millisecond))
	thread("spins", func() {})
	_, _ = os.Stdin.Read(make([]byte, 1)) // until whoever watches ends
}

// startSampled starts such a process and returns its threads.
func startSampled(t *testing.T) (pid uint32, threads map[string]uint32) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSamplerHelper$")
	cmd.Env = append(os.Environ(), samplerHelper+"=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
	})
	threads = make(map[string]uint32)
	for lines := bufio.NewReader(output); len(threads) < 3; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var what string
		var tid uint32
		if _, err := fmt.Sscanf(line, "%s %d", &what, &tid); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		threads[what] = tid
	}
	return uint32(cmd.Process.Pid), threads
}

// openTestSampler fails where this kernel should have a sampler and has none: perf events are everywhere, and
// the tracepoint needs type information alone.
func openTestSampler(t *testing.T) *Sampler {
	t.Helper()
	s, err := OpenSampler("",
		slog.New(slog.NewTextHandler(t.Output(),
			&slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	support := s.Support()
	if !support.OnCPU.Yes() || !support.OffCPU.Yes() || !support.Sleepers.Yes() {
		t.Fatalf("this kernel lacks something: %+v", support)
	}
	return s
}

// awaitSamples reads until something is seen, however busy the machine is with other things.
func awaitSamples(t *testing.T, s *Sampler, what string, found func(*Sample) bool) *Sample {
	t.Helper()
	var samples []Sample
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		var err error
		if samples, err = s.Read(); err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(samples,
			func(s Sample) bool { return found(&s) }); i >= 0 {
			return &samples[i]
		}
	}
	for _, sample := range samples {
		t.Logf("%+v", sample)
	}
	t.Fatalf("no thread seen that %s", what)
	return nil
}

func TestSampler(t *testing.T) {
	pid, threads := startSampled(t)
	s := openTestSampler(t)
	for _, collection := range s.programs {
		probetest.LogVerified(t, collection.Programs)
	}
	if err := s.Watch([]uint32{pid}); err != nil {
		t.Fatal(err)
	}
	awaitSamples(t, s, "spins", func(s *Sample) bool {
		return s.TID == threads["spins"] && s.State == event.ThreadRunning &&
			s.Times >= 2 && len(s.User) > 0
	})
	napper := awaitSamples(t, s, "naps", func(s *Sample) bool {
		return s.TID == threads["naps"] && s.State == event.ThreadSleeping && s.Times >= 3
	})
	if napper.TGID != pid || napper.Before || len(napper.User) == 0 ||
		len(napper.Kernel) == 0 ||
		napper.Away < 15*time.Millisecond || napper.Longest < 5*time.Millisecond ||
		napper.Longest > napper.Away || napper.Delay > napper.Away {
		t.Errorf("got %+v", napper)
	}
	sleeper := awaitSamples(t, s, "sleeps", func(s *Sample) bool {
		return s.TID == threads["sleeps"] && s.State == event.ThreadSleeping &&
			s.Ongoing > 100*time.Millisecond
	})
	// Its stack was there before anyone watched.
	if !sleeper.Before || len(sleeper.Kernel) == 0 ||
		(len(sleeper.User) > 0) != s.Support().SleepersUser ||
		sleeper.Away < sleeper.Ongoing {
		t.Errorf("got %+v", sleeper)
	}
	samples, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range samples {
		if sample.TGID != pid || sample.TID == 0 || sample.State == "" ||
			sample.Comm == "" {
			t.Errorf("got %+v", sample)
		}
	}
	loss, err := s.Loss()
	if err != nil || loss.Counts > 0 {
		t.Errorf("lost %+v, %v", loss, err)
	}
}

func TestSamplerWatchesNoOthers(t *testing.T) {
	pid, threads := startSampled(t)
	other, _ := startSampled(t)
	s := openTestSampler(t)
	if err := s.Watch([]uint32{pid}); err != nil {
		t.Fatal(err)
	}
	awaitSamples(t, s, "naps",
		func(s *Sample) bool { return s.TID == threads["naps"] && s.Times >= 2 })
	if err := s.Watch([]uint32{other}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	awaitSamples(t, s, "is another's",
		func(s *Sample) bool {
			return s.TGID == other && s.State == event.ThreadSleeping &&
				s.Times > 5
		})
	after, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	times := func(samples []Sample) (n uint64) {
		for _, sample := range samples {
			if sample.TGID == pid {
				n += sample.Times
				if sample.Ongoing > 0 {
					t.Errorf("of a process not watched any more: %+v", sample)
				}
			}
		}
		return n
	}
	// One thread per CPU may have been in the middle of it.
	if was, is := times(before), times(after); is > was+uint64(runtime.NumCPU()) || was == 0 {
		t.Errorf("%d times became %d after the watch ended", was, is)
	}
	if err := s.Watch(make([]uint32, 0)); err != nil {
		t.Error(err)
	}
	many := make([]uint32, MaxWatched+1)
	for i := range many {
		many[i] = uint32(1<<22 + i)
	}
	if err := s.Watch(many); err == nil {
		t.Error("more processes are watched than there is place for")
	}
}

// TestSamplerLeavesNothing: neither descriptors nor programs.
func TestSamplerLeavesNothing(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	open := func() ebpf.ProgramID {
		s, err := OpenSampler("", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		info, err := s.programs[0].Programs[bpf.SamplerProgPerfEventCpuClock].Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return id
	}
	open() // what the library keeps for good
	before := descriptors()
	id := open()
	if after := descriptors(); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
	// Programs are freed a grace period later.
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			break
		}
		program.Close()
		if time.Since(began) > 20*time.Second {
			t.Fatalf("program %d is still there", id)
		}
	}
}

// BenchmarkSwitch passes a byte to and fro between two threads, with nobody, with somebody else, and with the two
// watched.
func BenchmarkSwitch(b *testing.B) {
	for _, watched := range []string{"no", "others", "own"} {
		b.Run(watched, func(b *testing.B) {
			if watched != "no" {
				s, err := OpenSampler("", slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				pid := map[string]int{"others": 1, "own": os.Getpid()}[watched]
				if err := s.Watch([]uint32{uint32(pid)}); err != nil {
					b.Fatal(err)
				}
			}
			pingPong(b)
		})
	}
}

// pingPong switches twice a round, both threads on one CPU.
func pingPong(b *testing.B) {
	var there, back [2]int
	for _, pipe := range []*[2]int{&there, &back} {
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			b.Fatal(err)
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
	}
	var (
		cpu  unix.CPUSet
		both sync.WaitGroup
	)
	cpu.Set(0)
	side := func(do func(one []byte)) func() {
		return func() {
			runtime.LockOSThread() // and throw it away with its affinity
			_ = unix.SchedSetaffinity(0, &cpu)
			one := make([]byte, 1)
			for range b.N {
				do(one)
			}
		}
	}
	b.ResetTimer()
	both.Go(side(func(one []byte) {
		_, _ = unix.Read(there[0], one)
		_, _ = unix.Write(back[1], one)
	}))
	both.Go(side(func(one []byte) {
		_, _ = unix.Write(there[1], one)
		_, _ = unix.Read(back[0], one)
	}))
	both.Wait()
}

// TestSamplerRests: while nobody is watched nothing is attached; what was seen is kept, also of who slept when the watch ended.
func TestSamplerRests(t *testing.T) {
	pid, threads := startSampled(t)
	s := openTestSampler(t)
	if s.attached != nil || s.ticking {
		t.Fatal("a sampler that watches nobody is attached")
	}
	asleep := func(s *Sample) bool {
		return s.TID == threads["sleeps"] &&
			s.State == event.ThreadSleeping
	}
	for range 2 {
		if err := s.Watch([]uint32{pid}); err != nil {
			t.Fatal(err)
		}
		if s.attached == nil || !s.ticking {
			t.Fatal("a sampler that watches somebody is not attached")
		}
		awaitSamples(t, s, "naps",
			func(s *Sample) bool { return s.TID == threads["naps"] && s.Times >= 2 })
		awaitSamples(t, s, "spins",
			func(s *Sample) bool {
				return s.TID == threads["spins"] &&
					s.State == event.ThreadRunning
			})
		awaitSamples(t, s, "sleeps",
			func(s *Sample) bool { return asleep(s) && s.Ongoing > 0 })
		if err := s.Watch(nil); err != nil {
			t.Fatal(err)
		}
		if s.attached != nil || s.ticking {
			t.Fatal("a sampler that watches nobody any more is attached")
		}
		slept := awaitSamples(t, s, "slept", asleep)
		if slept.Ongoing > 0 || slept.Away == 0 || len(slept.Kernel) == 0 {
			t.Errorf("of a thread that slept to the end of the watch: %+v", slept)
		}
	}
}
