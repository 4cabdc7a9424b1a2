// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/test/schema"
)

// patience is how long anything that must happen may take, also under emulation.
const patience = 60 * time.Second

// What synspy writes, as its documentation has it and not as its code has it.
type (
	endpoint struct {
		Addr netip.Addr
		Port uint16
	}
	queue struct {
		Len, Limit uint32
	}
	cgroup struct {
		ID   uint64
		Path string
	}
	listener struct {
		endpoint
		Cookie      string
		Inode       uint64
		NetNS       uint64
		Proof       string
		AcceptQueue *queue `json:"accept_queue"`
		SynQueue    *queue `json:"syn_queue"`
		Reuseport   *struct{ Members, Full int }
	}
	container struct {
		ID, Name, Runtime string
	}
	pod struct {
		Namespace, Name, Container, UID string
	}
	process struct {
		PID          int
		Comm         string
		Role         string
		LastAcceptMs *int `json:"last_accept_ms"`
		Cgroup       *cgroup
		Container    *container
		Pod          *pod
	}
	count struct {
		Cause, Stage, Action string
		Count                int
	}
	row struct {
		NetNS                                  uint64
		Counter                                string
		Kernel, Synspy, Unattributed, Filtered int
		Shared, Gone                           bool
	}
	accepting struct {
		Arrivals int
		Accepts  *int
		Proof    string
		Waits    []struct {
			BelowUs int `json:"below_us"`
			Count   int
		}
		WaitedUs       *int `json:"waited_us"`
		LongestGapMs   *int `json:"longest_gap_ms"`
		LastAcceptMs   *int `json:"last_accept_ms"`
		AcceptQueueMax *int `json:"accept_queue_max"`
		SynQueueMax    *int `json:"syn_queue_max"`
	}
	seen struct {
		Listener  listener
		Syn, Ack  int
		Accepting *accepting
	}
	record struct {
		V          int
		Type       string
		Backend    string
		Time       time.Time
		Cause      string
		Stage      string
		Action     string
		Proof      string
		Kernel     json.RawMessage // of ready: a string
		Client     *endpoint
		Server     *endpoint
		Attempt    int
		Listener   *listener
		Processes  []process
		Cgroup     *cgroup
		Container  *container
		Pod        *pod
		ClientSees string `json:"client_sees"`
		Count      int
		read       time.Time // when the test had it

		// Of the summary.
		Counts                               []count
		Delivered, Suppressed, Lost, Cookies int
		Unattributed, Handshakes             int
		Seen                                 []seen
		Ledger                               []row
		Balanced                             bool
		Overflow                             *event.Overflow
	}
)

// addrPort is the packet's client.
func (r *record) client() netip.AddrPort {
	if r.Client == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(r.Client.Addr, r.Client.Port)
}

func (r *record) pids() []int {
	var pids []int
	for _, p := range r.Processes {
		pids = append(pids, p.PID)
	}
	return pids
}

// tracer is a running synspy trace.
type tracer struct {
	t       testing.TB
	cmd     *exec.Cmd
	backend string
	took    time.Duration // from exec to ready
	stderr  bytes.Buffer  // to be read when it has ended
	ended   chan struct{} // closed then
	readErr error

	mu      sync.Mutex
	records []record
	news    chan struct{} // has a value when records grew
}

// launch starts synspy trace with JSON output and does not wait for anything.
func launch(t testing.TB, args ...string) *tracer {
	t.Helper()
	args = append([]string{"trace", "--output", "json"}, args...)
	if backend := os.Getenv("SYNSPY_BACKEND"); backend != "" {
		args = append(args, "--backend", backend)
	}
	tr := &tracer{t: t, cmd: exec.Command(program, args...), ended: make(chan struct{}),
		news: make(chan struct{}, 1)}
	tr.cmd.Stderr = &tr.stderr
	stdout, err := tr.cmd.StdoutPipe()
	must(t, err)
	must(t, tr.cmd.Start())
	go tr.read(stdout)
	t.Cleanup(func() {
		_ = tr.cmd.Process.Kill()
		<-tr.ended
	})
	return tr
}

// start starts synspy trace and returns when it has said that it is ready.
func start(t testing.TB, args ...string) *tracer {
	t.Helper()
	began := time.Now()
	tr := launch(t, args...)
	tr.await("the ready record", func(records []record) bool { return len(records) > 0 })
	tr.took = time.Since(began)
	tr.backend = tr.records[0].Backend
	if want := os.Getenv("SYNSPY_BACKEND"); want != "" && want != "auto" && tr.backend != want {
		t.Fatalf("asked for backend %s, got %s", want, tr.backend)
	}
	return tr
}

// checkedDrops is how many records of a stream are held against the schema.
const checkedDrops = 100

func (tr *tracer) read(r io.Reader) {
	defer close(tr.ended)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var rec record
		if !utf8.Valid(lines.Bytes()) {
			tr.readErr = errors.Join(tr.readErr,
				fmt.Errorf("not UTF-8: %q", lines.Bytes()))
		}
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			tr.readErr = errors.Join(tr.readErr,
				fmt.Errorf("decode %q: %w", lines.Bytes(), err))
		}
		rec.read = time.Now()
		if rec.Type != "drop" || len(tr.records) < checkedDrops { // thousands are alike
			tr.readErr = errors.Join(tr.readErr, schema.Check(lines.Bytes()))
		}
		tr.mu.Lock()
		tr.records = append(tr.records, rec)
		tr.mu.Unlock()
		select {
		case tr.news <- struct{}{}:
		default:
		}
	}
	tr.readErr = errors.Join(tr.readErr, lines.Err())
	_ = tr.cmd.Wait() // its status is in ProcessState
}

// await waits until the records so far are what is wanted.
func (tr *tracer) await(what string, ok func([]record) bool) {
	tr.t.Helper()
	deadline := time.After(patience)
	for {
		tr.mu.Lock()
		done := ok(tr.records)
		tr.mu.Unlock()
		if done {
			return
		}
		select {
		case <-tr.news:
		case <-tr.ended:
			tr.mu.Lock()
			done := ok(tr.records)
			tr.mu.Unlock()
			if !done {
				tr.t.Fatalf("synspy ended (%v) before %s; it said:\n%s",
					tr.cmd.ProcessState, what, &tr.stderr)
			}
			return
		case <-deadline:
			tr.t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// has reports whether such a record has come.
func (tr *tracer) has(such func(record) bool) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.ContainsFunc(tr.records, such)
}

// account is all that a trace wrote.
type account struct {
	t       testing.TB
	backend string
	drops   []record
	cookies []record
	held    []record // suppressed and lost
	summary record
	stderr  string
}

// interrupt sends the signal of Ctrl-C.
func (tr *tracer) interrupt() { must(tr.t, tr.cmd.Process.Signal(syscall.SIGINT)) }

// stop ends the trace as Ctrl-C does and checks all that is true of any stream.
func (tr *tracer) stop() *account {
	tr.t.Helper()
	tr.interrupt()
	return tr.finish()
}

// finish waits for the end of a trace that has a reason to end.
func (tr *tracer) finish() *account {
	t := tr.t
	t.Helper()
	select {
	case <-tr.ended:
	case <-time.After(patience):
		t.Fatalf("synspy does not end; it said:\n%s", &tr.stderr)
	}
	if code := tr.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("synspy ended with %v; it said:\n%s", tr.cmd.ProcessState, &tr.stderr)
	}
	if tr.readErr != nil {
		t.Fatal(tr.readErr)
	}
	if n := len(tr.records); n < 2 || tr.records[0].Type != "ready" ||
		tr.records[n-1].Type != "summary" {
		t.Fatalf("%d records that do not begin with ready and end with summary", n)
	}
	a := &account{t: t, backend: tr.backend, stderr: tr.stderr.String(),
		summary: tr.records[len(tr.records)-1]}
	for _, r := range tr.records {
		if r.V != 1 {
			t.Fatalf("record of version %d: %+v", r.V, r)
		}
	}
	for _, r := range tr.records[1 : len(tr.records)-1] {
		switch r.Type {
		case "drop":
			a.drops = append(a.drops, r)
		case "cookie":
			a.cookies = append(a.cookies, r)
		case "suppressed", "lost":
			a.held = append(a.held, r)
		default:
			t.Fatalf("record of type %q in a stream", r.Type)
		}
	}
	a.check()
	return a
}

// check holds what is true of every account, whatever the traffic.
func (a *account) check() {
	t, s := a.t, &a.summary
	t.Helper()
	if got := len(a.drops) + len(a.cookies); got != s.Delivered {
		t.Errorf("%d records, the summary says %d were delivered", got, s.Delivered)
	}
	for kind, want := range map[string]int{"suppressed": s.Suppressed, "lost": s.Lost} {
		if got := a.heldBack(kind, 0); got != want {
			t.Errorf("%s records sum to %d, the summary says %d", kind, got, want)
		}
	}
	counted := 0
	for _, c := range s.Counts {
		counted += c.Count
	}
	if len(a.cookies) > 0 {
		counted += s.Cookies
	}
	if all := s.Delivered + s.Suppressed + s.Lost; counted != all {
		t.Errorf("counts sum to %d, delivered %d + suppressed %d + lost %d", counted,
			s.Delivered, s.Suppressed, s.Lost)
	}
	balanced := true
	for _, r := range s.Ledger {
		balanced = balanced && (r.Shared || r.Gone || r.Kernel == r.Synspy+r.Unattributed)
		if r.Filtered > r.Synspy {
			t.Errorf("more filtered than there is: %+v", r)
		}
	}
	if s.Balanced != balanced {
		t.Errorf("balanced is %v, the rows say %v", s.Balanced, balanced)
	}
	if !s.Balanced {
		for _, r := range s.Ledger {
			if r.Kernel != r.Synspy+r.Unattributed {
				t.Errorf("the ledger does not balance: %+v", r)
			}
		}
	}
}

// heldBack sums the records of a type, of one namespace unless it is 0.
func (a *account) heldBack(kind string, netns uint64) (n int) {
	for _, r := range a.held {
		if r.Type == kind &&
			(netns == 0 || r.Listener != nil && r.Listener.NetNS == netns) {
			n += r.Count
		}
	}
	return n
}

// of returns the drops of one namespace. The machine may be busy in others.
func (a *account) of(netns uint64) (drops []record) {
	for _, r := range a.drops {
		if r.Listener != nil && r.Listener.NetNS == netns {
			drops = append(drops, r)
		}
	}
	return drops
}

// overflows returns those of a full accept queue: what is queued when a listener
// closes is lost as well, and told apart.
func (a *account) overflows(netns uint64) (drops []record) {
	for _, r := range a.of(netns) {
		if r.Cause == "accept_queue_full" {
			drops = append(drops, r)
		}
	}
	return drops
}

// row returns a row of the ledger; ok is false where there is none.
func (a *account) row(netns uint64, counter string) (found row, ok bool) {
	for _, r := range a.summary.Ledger {
		if r.NetNS == netns && r.Counter == counter {
			return r, true
		}
	}
	return row{}, false
}

// wantRow compares a row to the unit. Tracepoints may leave unattributed what
// bound allows.
func (a *account) wantRow(netns uint64, counter string, kernel, filtered int) row {
	a.t.Helper()
	r, _ := a.row(netns, counter)
	if r.Kernel != kernel {
		a.t.Errorf("%s: the kernel moved it by %d, synspy read %d", counter, kernel,
			r.Kernel)
	}
	if r.Synspy+r.Unattributed != kernel {
		a.t.Errorf("%s: the kernel moved it by %d, synspy explains %d and leaves %d",
			counter, kernel, r.Synspy, r.Unattributed)
	}
	if r.Unattributed > a.bound(kernel) {
		a.t.Errorf("%s: %d of %d unattributed with backend %s", counter, r.Unattributed,
			kernel, a.backend)
	}
	if r.Filtered < filtered-r.Unattributed || r.Filtered > filtered {
		a.t.Errorf("%s: %d filtered, want %d", counter, r.Filtered, filtered)
	}
	return r
}

// bound is how much of a movement may stay unattributed: nothing, or, with
// tracepoints, under 1 in 1,000. A packet whose event was not seen takes the
// next one with it, so a short run may have two.
func (a *account) bound(moved int) int {
	if a.backend != "tracepoint" || moved < 100 {
		return 0
	}
	return max(2, moved/1000)
}
