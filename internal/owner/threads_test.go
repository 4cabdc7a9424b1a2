package owner

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
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
		{"230 0x1 0x1 0x7ffc2619e6c0 0x0 0x0 0x0 0x7ffc2619e600 0x7f00\n", &event.Syscall{Name: "clock_nanosleep", Number: 230,
			Args: []string{"0x1", "0x1", "0x7ffc2619e6c0", "0x0", "0x0", "0x0"}}},
		{"9999 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc2619e600 0x7f00\n", &event.Syscall{Number: 9999,
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
	if syscallNames()[0] == "" || !slices.Contains([]string{"accept", "accept4"}, syscallNames()[sysAccept()]) {
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
	if want := []string{"hrtimer_nanosleep", "do_thing [tun]", "0xffffffff"}; !slices.Equal(stack, want) {
		t.Errorf("stack %q, want %q", stack, want)
	}
	if deep := parseStack([]byte(strings.Repeat("[<0>] f+0x1/0x2\n", 1000))); len(deep) != maxFrames {
		t.Errorf("%d frames of a deep stack", len(deep))
	}
	for text, want := range map[string][3]uint64{
		"1417605 2727298 1\n": {1417605, 2727298, 1},
		"0 0 0\n":             {}, // not kept
		"0 5 1\n":             {0, 5, 1},
		"1 2\n":               {},
		"a b c\n":             {},
	} {
		on, waited, ok := parseSchedstat([]byte(text))
		if ok != (want[2] == 1) || ok && (on != want[0] || waited != want[1]) {
			t.Errorf("schedstat %q: %d %d %v", text, on, waited, ok)
		}
	}
	epoll := parseEpoll([]byte("pos:\t0\nflags:\t02\ntfd:        5 events:       19 data:  5  pos:0 ino:3a sdev:8\ntfd: 6 events: 1\n"))
	if len(epoll) != 1 || !epoll[0x3a] {
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
		"v1": {map[string]string{"cpu.cfs_quota_us": "2000\n", "cpu.cfs_period_us": "100000\n",
			"cpu.stat": "nr_periods 5\nnr_throttled 4\nthrottled_time 123456789\nnr_bursts 0\n"}, false,
			event.CPU{QuotaUs: n(2000), PeriodUs: n(100000), Periods: n(5), Throttled: n(4), ThrottledNs: n(123456789)}, true},
		"v1 without": {map[string]string{"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, false, event.CPU{}, false},
		"v2": {map[string]string{"cpu.max": "20000 100000\n",
			"cpu.stat": "usage_usec 9\nnr_periods 5\nnr_throttled 4\nthrottled_usec 7\n"}, true,
			event.CPU{QuotaUs: n(20000), PeriodUs: n(100000), Periods: n(5), Throttled: n(4), ThrottledNs: n(7000)}, true},
		"v2 without": {map[string]string{"cpu.max": "max 100000\n"}, true, event.CPU{}, false},
		"none":       {nil, true, event.CPU{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
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
	if err := os.WriteFile(filepath.Join(dir, "cpu.pressure"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&event.Pressure{SomeUs: n(309374606), FullUs: n(0)}, pressureOf(dir)); diff != "" {
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
	if !slices.ContainsFunc(sample.Threads(0), func(t event.Thread) bool { return t.RanNs != nil && *t.RanNs > 0 }) {
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
		{Thread: event.Thread{TID: 2, State: "S", Syscall: call("epoll_wait")}, epoll: map[uint64]bool{7: true}, waits: true},
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
	if _, yes := sample.Elsewhere(7); yes {
		t.Error("one is in epoll_wait, and all are said to be elsewhere")
	}
	sample.threads = []sampled{sample.threads[0], sample.threads[2]}
	sample.Total = 2
	if calls, yes := sample.Elsewhere(7); !yes || !slices.Equal(calls, []string{"futex", "accept"}) {
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
