// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/kernel/proc"
)

func TestParseSyscall(t *testing.T) {
	names := map[int64]string{230: "clock_nanosleep"}
	for _, c := range []struct {
		text string
		want *event.Syscall
	}{
		{"running\n", nil},
		{"", nil},
		{"-1 0x7ffc 0x7f\n", nil}, // blocked, but in no call
		{"230 0x1 0x1 0x7ffc2619e6c0 0x0 0x0 0x0 0x7ffc2619e600 0x7f00\n",
			&event.Syscall{Name: "clock_nanosleep", Number: 230,
				Args: []string{"0x1", "0x1", "0x7ffc2619e6c0", "0x0", "0x0",
					"0x0"}}},
		{"9999 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc2619e600 0x7f00\n",
			&event.Syscall{Number: 9999,
				Args: []string{"0x1", "0x2", "0x3", "0x4", "0x5", "0x6"}}},
		// A 32-bit program: its calls are numbered differently.
		{"230 0x1 0x2 0x3 0x4 0x5 0x6 0xffa01000 0xf7f01000\n", &event.Syscall{Number: 230,
			Args: []string{"0x1", "0x2", "0x3", "0x4", "0x5", "0x6"}}},
		{"x 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc2619e600 0x7f00\n", nil},
	} {
		if diff := cmp.Diff(c.want, parseSyscall([]byte(c.text), names)); diff != "" {
			t.Errorf("%q:\n%s", c.text, diff)
		}
	}
	if syscallNames()[0] == "" || !slices.Contains([]string{"accept", "accept4"},
		syscallNames()[sysAccept()]) {
		t.Errorf("the table does not know its own numbers")
	}
}

// sysAccept is the number that the table itself has for accept.
func sysAccept() int64 {
	for n, name := range syscallNames() {
		if name == "accept" {
			return n
		}
	}
	return -1
}

func TestParseThreadFiles(t *testing.T) {
	for stat, want := range map[string]string{
		"7 (a) S 1 2":                     "S",
		"7 (x) R (y) D 1 2":               "D",
		"7 (\x1b[2J\n) Z 9) t 1":          "t",
		"7 (name":                         "",
		"7 (a) ":                          "",
		"7 (a) long 1":                    "",
		"7 (R) S (R) S 1) R 0 0 0 0 0 0 ": "R",
	} {
		if got := parseState([]byte(stat)); got != want {
			t.Errorf("state of %q is %q, want %q", stat, got, want)
		}
	}
	stack := parseStack([]byte("[<0>] hrtimer_nanosleep+0xab/0x150\n[<0>] do_thing+0x1/0x2 [tun]\nnonsense\n[<0>] 0xffffffff\n"))
	if want := []string{"hrtimer_nanosleep", "do_thing [tun]",
		"0xffffffff"}; !slices.Equal(stack, want) {
		t.Errorf("stack %q, want %q", stack, want)
	}
	if deep := parseStack([]byte(strings.Repeat("[<0>] f+0x1/0x2\n",
		1000))); len(deep) != maxFrames {
		t.Errorf("%d frames of a deep stack", len(deep))
	}
	for text, want := range map[string]ticks{
		"1417605 2727298 3\n": {1417605, 2727298, 3},
		"0 0 0\n":             {}, // not kept
		"0 5 1\n":             {0, 5, 1},
		"1 2\n":               {},
		"a b c\n":             {},
	} {
		got, ok := parseSchedstat([]byte(text))
		if ok != (want != ticks{}) || ok && got != want {
			t.Errorf("schedstat %q: %+v %v", text, got, ok)
		}
	}
	epoll := parseEpoll([]byte("pos:\t0\nflags:\t02\ntfd:        5 events:       19 data:  5  pos:0 ino:3a sdev:8\ntfd: 6 events: 1\n"))
	if !slices.Equal(epoll, []inEpoll{{"5", 0x3a}}) {
		t.Errorf("epoll has %v, want inode 0x3a alone", epoll)
	}
}

func TestParseCPU(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	for name, c := range map[string]struct {
		files map[string]string
		isV2  bool
		want  event.CPU
		quota bool
	}{
		"v1": {map[string]string{"cpu.cfs_quota_us": "2000\n",
			"cpu.cfs_period_us": "100000\n",
			"cpu.stat":          "nr_periods 5\nnr_throttled 4\nthrottled_time 123456789\nnr_bursts 0\n"}, false,
			event.CPU{QuotaUs: n(2000), PeriodUs: n(100000), Periods: n(5),
				Throttled: n(4), ThrottledNs: n(123456789)}, true},
		"v1 without": {map[string]string{"cpu.cfs_quota_us": "-1\n",
			"cpu.cfs_period_us": "100000\n"}, false, event.CPU{}, false},
		"v2": {map[string]string{"cpu.max": "20000 100000\n",
			"cpu.stat": "usage_usec 9\nnr_periods 5\nnr_throttled 4\nthrottled_usec 7\n"}, true,
			event.CPU{QuotaUs: n(20000), PeriodUs: n(100000), Periods: n(5),
				Throttled: n(4), ThrottledNs: n(7000)}, true},
		"v2 without": {map[string]string{"cpu.max": "max 100000\n"}, true, event.CPU{},
			false},
		"none": {nil, true, event.CPU{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text),
					0o600); err != nil {
					t.Fatal(err)
				}
			}
			var got event.CPU
			if quota := quotaOf(dir, c.isV2, &got); quota != c.quota {
				t.Errorf("has a quota: %v", quota)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	dir := t.TempDir()
	text := "some avg10=87.66 avg60=56.94 avg300=39.61 total=309374606\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	if err := os.WriteFile(filepath.Join(dir, "cpu.pressure"), []byte(text),
		0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&event.Pressure{SomeUs: n(309374606), FullUs: n(0)},
		pressureOf(dir)); diff != "" {
		t.Error(diff)
	}
}

// TestSample reads this very process, and processes that are not what they were.
func TestSample(t *testing.T) {
	s := NewSampler("/proc", nil)
	pid := uint32(os.Getpid())
	sample, err := s.Sample(pid, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	threads := sample.Threads(0)
	if sample.Total < 2 || len(threads) < 2 || len(threads) > maxThreads {
		t.Fatalf("%d of %d threads of a Go program", len(threads), sample.Total)
	}
	if calls, yes := sample.Elsewhere(0); yes {
		t.Errorf("the thread that reads is asleep in %v", calls)
	}
	for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); { // to be seen to run
	}
	if sample, err = s.Sample(pid, 0, 0); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(sample.Threads(0),
		func(t event.Thread) bool { return t.RanNs != nil && *t.RanNs > 0 }) {
		t.Error("no thread ran between two samples")
	}
	if _, err := s.Sample(pid, 1, 0); err == nil {
		t.Error("a process that began at another time is taken for this one")
	}
	if _, err := s.Sample(1<<30, 0, 0); err == nil {
		t.Error("no such process, and it is sampled")
	}
}

// TestSampleAccepts: which threads are known to serve a listener.
func TestSampleAccepts(t *testing.T) {
	call := func(name string) *event.Syscall { return &event.Syscall{Name: name} }
	sample := &Sample{Total: 4, threads: []sampled{
		{Thread: event.Thread{TID: 1, State: "S", Syscall: call("futex")}},
		{Thread: event.Thread{TID: 2, State: "S", Syscall: call("epoll_wait")},
			epoll: &polled{inodes: map[uint64]bool{7: true}, whole: true}, waits: true},
		{Thread: event.Thread{TID: 3, State: "S", Syscall: call("accept")}, accept: 8},
		{Thread: event.Thread{TID: 4, State: "S", Syscall: call("poll")}, waits: true},
	}}
	got := map[uint32]string{}
	for _, thread := range append(sample.Threads(7), sample.Threads(8)...) {
		if thread.Accepts != "" {
			got[thread.TID] = thread.Accepts
		}
	}
	if want := map[uint32]string{2: "epoll", 3: "accept"}; !cmp.Equal(got, want) {
		t.Errorf("accepting threads %v, want %v", got, want)
	}
	yes, no := true, false
	if got, want := sample.Polls(7), []*bool{nil, &yes, &no, nil}; !cmp.Equal(got, want) {
		t.Errorf("polls the listener: %v, want %v", got, want)
	}
	sample.threads[1].epoll.whole = false // not all that is in it could be read
	if got, want := sample.Polls(8), []*bool{nil, nil, &yes, nil}; !cmp.Equal(got, want) {
		t.Errorf("polls the other listener: %v, want %v", got, want)
	}
	if _, yes := sample.Elsewhere(7); yes {
		t.Error("one is in epoll_wait, and all are said to be elsewhere")
	}
	sample.threads = []sampled{sample.threads[0], sample.threads[2]}
	sample.Total = 2
	if calls, yes := sample.Elsewhere(7); !yes ||
		!slices.Equal(calls, []string{"futex", "accept"}) {
		t.Errorf("asleep in futex and in accept() on another: %v %v", calls, yes)
	}
	if _, yes := sample.Elsewhere(8); yes {
		t.Error("one is in accept() on the listener, and all are said to be elsewhere")
	}
	sample.Total = 3 // one was not read
	if _, yes := sample.Elsewhere(7); yes {
		t.Error("what one thread does is not known, and all are said to be elsewhere")
	}
}

// TestServersStay: a thread that was seen to wait for the listener is told of whatever it does
// later, among however many.
func TestServersStay(t *testing.T) {
	s := NewSampler("/proc", nil)
	look := func(doing func(tid uint32) sampled) *Sample {
		tids := make([]uint32, 4*maxThreadsRead)
		for i := range tids {
			tids[i] = uint32(i + 1)
		}
		sample := &Sample{Total: len(tids), cut: true}
		for _, tid := range s.choose(1, tids) {
			one := doing(tid)
			one.TID, one.ran.serve = tid, s.threads[threadID{tid: tid}].serve
			sample.threads = append(sample.threads, one)
		}
		s.remember(1, sample, 7)
		sample.rank(7)
		return sample
	}
	read := make(map[uint32]bool)
	for range 5 {
		for _, one := range look(func(tid uint32) sampled {
			one := sampled{waits: true}
			switch tid {
			case 1000:
				one.accept = 7
			case 1500:
				one.epoll = &polled{inodes: map[uint64]bool{7: true}}
			case 2000:
				one.accept = 8
			}
			return one
		}).threads {
			read[one.TID] = true
		}
	}
	if len(read) != 4*maxThreadsRead {
		t.Errorf("%d of %d threads came to their turn", len(read), 4*maxThreadsRead)
	}
	var first []uint32
	for _, thread := range look(func(uint32) sampled {
		return sampled{waits: true}
	}).Threads(7)[:3] {
		first = append(first, thread.TID)
	}
	if !slices.Equal(first[:2], []uint32{1000, 1500}) || first[2] == 2000 {
		t.Errorf("first are %v", first)
	}
}

// TestPollsOf: what is in an epoll instance, and in one within it.
func TestPollsOf(t *testing.T) {
	make1 := func() int {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	put := func(in, fd int) {
		if err := unix.EpollCtl(in, unix.EPOLL_CTL_ADD, fd,
			&unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	var st unix.Stat_t
	if err := unix.Fstat(listener, &st); err != nil {
		t.Fatal(err)
	}
	outer, inner := make1(), make1()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	put(inner, listener)
	defer unix.Close(event)
	put(outer, event)
	dir, err := proc.New("/proc", slog.New(slog.DiscardHandler)).Open(uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if p, _ := pollsOf(dir, strconv.Itoa(outer)); p.has(st.Ino) || !p.whole {
		t.Errorf("an instance without the listener: %+v", p)
	}
	put(outer, inner)
	if p, _ := pollsOf(dir, strconv.Itoa(outer)); !p.has(st.Ino) || !p.whole {
		t.Errorf("an instance that has one with the listener in it: %+v", p)
	}
	if p, err := pollsOf(dir, "100000"); p.whole || err == nil {
		t.Errorf("no such descriptor, and all is known of it: %+v", p)
	}
}

// TestFrozen: which cgroup keeps a process from running, by files of both versions.
func TestFrozen(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := &Sampler{proc: &proc.FS{Mounts: cgroup.Mounts{{V2: true, Root: "/", Point: root +
		"/v2"},
		{Options: []string{"rw", "freezer"}, Root: "/", Point: root + "/v1"}}}}
	var file string
	of := func() (cgroup string) {
		dir, err := unix.Open(filepath.Join(root, "7"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(dir)
		cgroup, file = s.frozenOf(membershipsOf(dir))
		return cgroup
	}
	write("7/cgroup", "3:freezer:/docker/a\n0::/pods/b/c\n")
	write("v2/pods/b/c/cgroup.events", "populated 1\nfrozen 0\n")
	write("v2/pods/b/cgroup.events", "populated 1\nfrozen 0\n")
	write("v1/docker/a/freezer.state", "FREEZING\n")
	if got := of(); got != "" {
		t.Errorf("%q is called frozen", got)
	}
	write("v2/pods/b/c/cgroup.events", "populated 1\nfrozen 1\n")
	if got := of(); got != "/pods/b/c" {
		t.Errorf("frozen by %q", got)
	}
	write("v2/pods/b/cgroup.events", "populated 1\nfrozen 1\n")
	if got := of(); got != "/pods/b" || file != root+"/v2/pods/b/cgroup.freeze" {
		t.Errorf("frozen with its parent, by %q, %q", got, file)
	}
	write("v1/docker/a/freezer.state", "FROZEN\n")
	if got := of(); got != "/docker/a" || file != root+"/v1/docker/a/freezer.state" {
		t.Errorf("frozen in version 1, by %q, %q", got, file)
	}
}

// TestDescriptors: this process, with its limit lowered to what it has open, and one that it has
// above it.
func TestDescriptors(t *testing.T) {
	s, pid := NewSampler("/proc", nil), uint32(os.Getpid())
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	free, err := s.DescriptorsOf(pid, 0)
	if err != nil || free.Full || free.Open < 3 || free.Limit != before.Cur {
		t.Errorf("%+v, %v; the limit is %d", free, err, before.Cur)
	}
	dir, err := s.proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	below, all, err := countDescriptors(dir, 2)
	if err != nil || below != 2 || all < free.Open {
		t.Errorf("%d below 2, %d in all, %v; %d were open before", below, all, err,
			free.Open)
	}
	if got := parseFileLimit([]byte("Max file locks unlimited unlimited locks\nMax open files            1024                 524288               files\n")); got != 1024 {
		t.Errorf("limit %d", got)
	}
	if _, err := s.DescriptorsOf(pid, 1); err == nil {
		t.Error("another process's descriptors are taken for this one's")
	}
}

// TestStackOfSleeper: the stack of a thread that has slept all the time is not read again, and is
// told all the same.
func TestStackOfSleeper(t *testing.T) {
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
	})
	s := NewSampler("/proc", nil)
	pid := uint32(cmd.Process.Pid)
	var first, second *Sample
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if first, err = s.Sample(pid, 0, 0); err != nil {
			t.Fatal(err)
		}
		if second, err = s.Sample(pid, 0, 0); err != nil {
			t.Fatal(err)
		}
		if second.threads[0].still && len(first.threads[0].Stack) > 0 {
			break
		}
		if len(second.Refused) > 0 || time.Since(began) > 10*time.Second {
			t.Fatalf("it does not come to rest: %+v, refused %v", second.threads[0],
				second.Refused)
		}
	}
	if a, b := first.threads[0].Stack, second.threads[0].Stack; !slices.Equal(a, b) ||
		&a[0] != &b[0] {
		t.Errorf("the stack was %q, and is %q, read again", a, b)
	}
}
