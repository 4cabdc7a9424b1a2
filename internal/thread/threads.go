// SPDX-License-Identifier: Apache-2.0

// Package thread reads what a process's threads do: their states and system calls, the time they
// ran and waited, the CPU that their cgroups let them have, and the descriptors they are short of.
package thread

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/proc"
)

// Bounds of a sampling.
const (
	maxThreadsRead = 512   // threads of a process whose state and call are read
	maxThreads     = 32    // of them, those that are told with their stacks
	maxFrames      = 32    // of a stack
	maxRemembered  = 32768 // threads whose last sample is kept, to make rates
)

// Sampler reads what threads are doing, from /proc alone: nothing is stopped or
// attached to, and a task that is gone, or sleeps too deeply to be killed, holds
// nobody up. Its methods may be called from any goroutine.
type Sampler struct {
	proc  *proc.FS
	names map[int64]string

	mu      sync.Mutex
	threads map[threadID]ran
	cpus    map[string]cpuBefore // by the cgroup's directory
	turns   map[uint32]turn      // of processes with more threads than are read
}

type threadID struct {
	tid   uint32
	start uint64 // clock ticks since boot
}

// ran is how much a thread had run when it was last sampled, and what it did then.
type ran struct {
	at, same time.Time // same: since when it is known not to have run
	ticks
	state string
	call  *event.Syscall
	stack []string // nil where it was not read
	moved bool     // it ran since it was first looked at
	serve []uint64 // inodes of listeners that it was seen to wait for
}

type cpuBefore struct {
	at  time.Time
	cpu event.CPU
}

// NewSampler returns a sampler of the processes below procRoot, which is "/proc"
// outside tests.
func NewSampler(procRoot string, log *slog.Logger) *Sampler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Sampler{proc: proc.New(procRoot, log), names: syscallNames(),
		threads: make(map[threadID]ran),
		cpus:    make(map[string]cpuBefore), turns: make(map[uint32]turn)}
}

// Sample is what one process was doing.
type Sample struct {
	At     time.Time
	Total  int        // threads that it had
	CPU    *event.CPU // nil where its cgroup tells nothing
	Frozen string     // the cgroup that keeps its threads from running; empty for none
	// FrozenBy is the file that says so to the kernel: cgroup.freeze, or of version 1
	// freezer.state.
	FrozenBy string
	// Refused has the files below /proc/PID that are there and could not be read, such as
	// "syscall", and the error.
	Refused map[string]error
	threads []sampled
	cut     bool // some threads were not read at all
}

// sampled is a thread, and the inodes of the sockets it waits for.
type sampled struct {
	event.Thread
	start  uint64
	accept uint64  // in accept(); 0: not, or not known
	epoll  *polled // in epoll_wait()
	waits  bool    // for something that may be any socket
	still  bool    // it has not been on a CPU since it was last looked at, and did the same then
	ran    ran
}

// Sample reads the threads of a process. The start, in clock ticks since boot, must
// be the process's own unless it is 0; the error says when the PID is another's now.
// Listener is the inode of the socket that matters most: where there are more
// threads than are told, those that serve it, or once did, come first.
func (s *Sampler) Sample(pid uint32, start, listener uint64) (*Sample, error) {
	dir, err := s.proc.Open(pid)
	if err != nil {
		return nil, fmt.Errorf("sample process: %w", err)
	}
	defer unix.Close(dir)
	st, err := proc.StatAt(dir)
	if err != nil {
		return nil, fmt.Errorf("sample process: %w", err)
	}
	if start != 0 && st.Start != start {
		return nil, fmt.Errorf("sample process %d: %w", pid, proc.ErrOtherProcess)
	}
	tids, err := proc.ThreadsOf(dir)
	if err != nil {
		return nil, fmt.Errorf("sample process: %w", err)
	}
	sample := &Sample{At: time.Now(), Total: len(tids), cut: len(tids) > maxThreadsRead,
		Refused: make(map[string]error)}
	epolls := make(map[string]*polled)
	for _, tid := range s.choose(pid, tids) {
		if t, err := s.thread(dir, tid, epolls, sample); err == nil { // else it is gone
			sample.threads = append(sample.threads, t)
		}
	}
	s.remember(pid, sample, listener)
	sample.rank(listener)
	for i := range sample.threads[:min(len(sample.threads), maxThreads)] {
		s.detail(dir, &sample.threads[i], sample)
	}
	groups := membershipsOf(dir)
	sample.Frozen, sample.FrozenBy = s.frozenOf(groups)
	sample.CPU = s.cpuOf(groups, sample.At)
	s.forget(sample.At)
	return sample, nil
}

// thread reads a thread's state, how much it ran, and what it waits for.
func (s *Sampler) thread(dir int, tid uint32, epolls map[string]*polled, of *Sample) (sampled,
	error) {
	at := "task/" + strconv.FormatUint(uint64(tid), 10) + "/"
	text, err := proc.ReadAt(dir, at+"stat")
	if err != nil {
		return sampled{}, err
	}
	st, err := proc.ParseStat(text)
	if err != nil {
		return sampled{}, err
	}
	t := sampled{Thread: event.Thread{TID: tid, Comm: st.Comm, State: parseState(text)},
		start: st.Start}
	s.progress(dir, at, &t, of)
	if t.Syscall == nil || len(t.Syscall.Args) == 0 {
		return t, nil
	}
	fd, _ := strconv.ParseUint(strings.TrimPrefix(t.Syscall.Args[0], "0x"), 16,
		64) // as the kernel writes it
	number := strconv.FormatUint(fd&0xffffffff, 10) // an int
	switch t.Syscall.Name {
	case "accept", "accept4":
		t.accept, err = inodeOfFile(dir, number)
		of.refuse("fd", err)
		t.waits = t.accept == 0
	case "epoll_wait", "epoll_pwait", "epoll_pwait2":
		t.waits = true // an instance may have others in it
		have, ok := epolls[number]
		if !ok {
			var err error
			have, err = pollsOf(dir, number)
			of.refuse("fdinfo", err)
			epolls[number] = have
		}
		t.epoll = have
	case "poll", "ppoll", "select", "_newselect", "pselect6", "io_uring_enter", "io_getevents",
		"io_pgetevents":
		t.waits = true
	}
	return t, nil
}

// refuse keeps why a file could not be read, where it is there.
func (s *Sample) refuse(file string, err error) {
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
		s.Refused[file] = err
	}
}

// progress reads how much a thread has run since it was last looked at, and the call that it is in:
// one that slept then and has not run since is in the same.
func (s *Sampler) progress(dir int, at string, t *sampled, of *Sample) {
	now := of.At
	id := threadID{t.TID, t.start}
	s.mu.Lock()
	before, known := s.threads[id]
	s.mu.Unlock()
	latest := ran{at: now, same: now, state: t.State, moved: before.moved, serve: before.serve}
	text, err := proc.ReadAt(dir, at+"schedstat")
	of.refuse("schedstat", err)
	ok := err == nil
	if ok {
		latest.ticks, ok = parseSchedstat(text)
	}
	t.still = ok && before.call != nil && latest.ticks == before.ticks &&
		before.state == t.State && asleep(t.State)
	if t.still {
		t.Syscall, latest.stack = before.call, before.stack
	} else {
		text, err = proc.ReadAt(dir, at+"syscall")
		of.refuse("syscall", err)
		if err == nil {
			t.Syscall = parseSyscall(text, s.names)
		}
	}
	latest.call = t.Syscall
	if ok {
		t.OnCPUNs, t.RunDelayNs = number(latest.onCPU), number(latest.waited)
	}
	if ok && known && latest.onCPU >= before.onCPU && latest.waited >= before.waited {
		t.DuringMs = milliseconds(now.Sub(before.at))
		t.RanNs, t.WaitedNs = number(latest.onCPU-before.onCPU),
			number(latest.waited-before.waited)
		latest.moved = latest.moved || latest.onCPU > before.onCPU
		if latest.onCPU == before.onCPU {
			latest.same = before.same
			if t.State != "R" {
				t.OffCPUMs = milliseconds(now.Sub(before.same))
			}
		}
	}
	t.ran = latest
}

// asleep reports whether a state is one that a thread does not leave without a CPU.
func asleep(state string) bool {
	return state == "S" || state == "D" || state == "T" ||
		state == "t"
}

// inodeOfFile is the inode of a process's open socket; 0 where that is not known.
func inodeOfFile(dir int, number string) (uint64, error) {
	buf := make([]byte, 64)
	n, err := unix.Readlinkat(dir, "fd/"+number, buf)
	if err != nil {
		return 0, err
	}
	inode, _ := proc.SocketInode(buf[:n])
	return inode, nil
}

// detail reads what is told of a thread beyond that: where one slept all the time, it sleeps at the
// same place.
func (s *Sampler) detail(dir int, t *sampled, of *Sample) {
	if t.still && t.ran.stack != nil {
		t.Stack = t.ran.stack
		return
	}
	text, err := proc.ReadAt(dir, "task/"+strconv.FormatUint(uint64(t.TID), 10)+"/stack")
	of.refuse("stack", err)
	if err != nil {
		return
	}
	t.Stack = parseStack(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.ran.stack = t.Stack
	s.threads[threadID{t.TID, t.start}] = t.ran
}

// forget drops the oldest samples where there are too many.
func (s *Sampler) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for age := time.Minute; len(s.threads)+len(s.cpus) > maxRemembered &&
		age > time.Second; age /= 2 {
		for id, r := range s.threads {
			if now.Sub(r.at) > age {
				delete(s.threads, id)
			}
		}
		for dir, c := range s.cpus {
			if now.Sub(c.at) > age {
				delete(s.cpus, dir)
			}
		}
	}
	if len(s.threads)+len(s.cpus) > maxRemembered {
		clear(s.threads)
		clear(s.cpus)
	}
	if len(s.turns) > maxTurns {
		clear(s.turns)
	}
}

// rank puts the threads that say most first: those that serve the listener, or were seen to before;
// those that run; those that ran since they were first looked at; those that wait for anything; and
// then by number. Who accepts is in accept() only while there is nothing to accept, and what it
// does at other times is what matters.
func (s *Sample) rank(listener uint64) {
	weight := func(t *sampled) int {
		switch {
		case listener != 0 && (s.accepts(t, listener) != "" ||
			slices.Contains(t.ran.serve, listener)):
			return 0
		case t.State == "R", t.State == "D", t.RanNs != nil && *t.RanNs > 0:
			return 1
		case t.ran.moved:
			return 2
		case t.waits:
			return 3
		default:
			return 4
		}
	}
	slices.SortStableFunc(s.threads, func(a, b sampled) int {
		return cmp.Or(cmp.Compare(weight(&a), weight(&b)), cmp.Compare(a.TID, b.TID))
	})
}

// accepts says how it is known that the thread serves the listener with the inode.
func (s *Sample) accepts(t *sampled, inode uint64) string {
	switch {
	case inode != 0 && t.accept == inode:
		return event.AcceptsInAccept
	case t.epoll.has(inode):
		return event.AcceptsInEpoll
	case s.Total == 1:
		return event.AcceptsAlone
	default:
		return ""
	}
}

// Threads lists the threads, as they are to the listener with the inode. The slice is the
// caller's; what its pointers lead to is shared.
func (s *Sample) Threads(inode uint64) []event.Thread {
	list := make([]event.Thread, 0, min(len(s.threads), maxThreads))
	for i := range s.threads[:min(len(s.threads), maxThreads)] {
		t := s.threads[i].Thread
		t.Accepts = s.accepts(&s.threads[i], inode)
		list = append(list, t)
	}
	return list
}

// Polls says for each of Threads whether the call that it sleeps in would end by a connection at
// the listener with the inode; nil where that is not known, or it sleeps in no such call.
func (s *Sample) Polls(inode uint64) []*bool {
	list := make([]*bool, 0, min(len(s.threads), maxThreads))
	for i := range s.threads[:min(len(s.threads), maxThreads)] {
		t := &s.threads[i]
		has := inode != 0 && t.accept == inode || t.epoll.has(inode)
		if has || inode != 0 && (t.accept != 0 || t.epoll != nil && t.epoll.whole) {
			list = append(list, &has)
		} else {
			list = append(list, nil)
		}
	}
	return list
}

// Elsewhere reports whether every thread of the process is known to sleep in a system
// call that cannot end by a connection to the listener, and names these calls. It
// is false wherever something is not known.
func (s *Sample) Elsewhere(inode uint64) (calls []string, yes bool) {
	if s.cut || len(s.threads) != s.Total || s.Total == 0 {
		return nil, false
	}
	for i := range s.threads {
		t := &s.threads[i]
		if !asleep(t.State) || t.Syscall == nil || t.Syscall.Name == "" || t.waits ||
			inode != 0 && t.accept == inode {
			return nil, false
		}
		if !slices.Contains(calls, t.Syscall.Name) {
			calls = append(calls, t.Syscall.Name)
		}
	}
	return calls, true
}

// parseState takes field 3 of /proc/PID/stat.
func parseState(stat []byte) string {
	end := bytes.LastIndexByte(stat, ')')
	if f := bytes.Fields(stat[end+1:]); end >= 0 && len(f) > 0 && len(f[0]) == 1 {
		return string(f[0])
	}
	return ""
}

// wordLimit is above every stack pointer of a 32-bit program, whose calls have
// other numbers.
const wordLimit = 1 << 32

// parseSyscall reads /proc/PID/syscall: "running", or the number, six arguments, the
// stack pointer and the program counter; -1 for a thread that is blocked outside
// of any call.
func parseSyscall(text []byte, names map[int64]string) *event.Syscall {
	f := strings.Fields(string(text))
	if len(f) != 9 {
		return nil
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	call := &event.Syscall{Number: n, Args: f[1:7:7]}
	if stack, err := strconv.ParseUint(strings.TrimPrefix(f[7], "0x"), 16, 64); err == nil &&
		stack >= wordLimit {
		call.Name = names[n]
	}
	return call
}

// parseStack reads lines of "[<0>] function+0x12/0x34 [module]".
func parseStack(text []byte) (frames []string) {
	for line := range strings.Lines(string(text)) {
		if len(frames) == maxFrames {
			break
		}
		_, frame, ok := strings.Cut(strings.TrimSpace(line), "] ")
		if !ok {
			continue
		}
		function, rest, _ := strings.Cut(frame, "+")
		if _, module, ok := strings.Cut(rest, " "); ok {
			function += " " + module
		}
		frames = append(frames, function)
	}
	return frames
}

// ticks is how long a thread was on a CPU, and waited for one, in nanoseconds, and how often it was
// given one.
type ticks struct{ onCPU, waited, times uint64 }

// parseSchedstat reads them. A kernel that does not keep them shows zeros.
func parseSchedstat(text []byte) (ticks, bool) {
	f := strings.Fields(string(text))
	if len(f) < 3 {
		return ticks{}, false
	}
	onCPU, err1 := strconv.ParseUint(f[0], 10, 64)
	waited, err2 := strconv.ParseUint(f[1], 10, 64)
	times, err3 := strconv.ParseUint(f[2], 10, 64)
	return ticks{onCPU, waited, times}, errors.Join(err1, err2, err3) == nil &&
		(onCPU > 0 || times > 0)
}

func number(n uint64) *uint64 { return &n }

func milliseconds(d time.Duration) *uint64 { return number(uint64(max(d, 0).Milliseconds())) }
