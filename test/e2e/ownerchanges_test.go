// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
)

// staleFor is how long a record may name what is no longer so: who holds a listener is
// asked once a second, on a busy machine perhaps a little later.
const staleFor = 5 * time.Second

// TestOwnerChanges: while a listener drops, those who hold it change.
func TestOwnerChanges(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"exec": testExec, "exit": testExit, "PID taken over": testPIDTakenOver,
		"in flight": testInFlight, "MPTCP": testMPTCP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// testExec: the only holder becomes another program.
func testExec(t *testing.T) {
	o := observe(t, "exec")
	o.becomes(holds(o.leader, "lead-exec", "listener"))
	must(t, unix.Kill(o.leader, unix.SIGUSR1))
	o.await("it executes", func() bool {
		return o.isHeldBy(process{PID: o.leader, Comm: "sleep"})
	})
	o.becomes(holds(o.leader, "sleep", "listener"))
	o.check()
}

// testExit: who called listen() exits, and leaves the listener to a program that knows
// nothing of it.
func testExit(t *testing.T) {
	o := observe(t, "leak")
	heir := o.heir("sleep")
	o.becomes(holds(o.leader, "lead-leak", "listener"), holds(heir, "sleep", "holder"))
	must(t, unix.Kill(o.leader, unix.SIGKILL))
	o.await("one exits", func() bool { return o.isHeldBy(process{PID: heir, Comm: "sleep"}) })
	o.becomes(holds(heir, "sleep", "holder"))
	o.check()
}

// testPIDTakenOver: one of two holders exits, and a process that never saw the listener
// gets its number.
func testPIDTakenOver(t *testing.T) {
	const lastPID = "/proc/sys/kernel/ns_last_pid"
	if _, err := os.Stat(lastPID); errors.Is(err, fs.ErrNotExist) {
		t.Skip("this kernel cannot be told the next PID: no CONFIG_CHECKPOINT_RESTORE")
	}
	tail, err := exec.LookPath("tail")
	must(t, err)
	o := observe(t, "leak")
	heir := o.heir("sleep")
	leader := holds(o.leader, "lead-leak", "listener")
	o.becomes(leader, holds(heir, "sleep", "holder"))
	must(t, unix.Kill(heir, unix.SIGKILL))
	o.await("it is gone", func() bool { return errors.Is(unix.Kill(heir, 0), unix.ESRCH) })
	o.await("another has its number", func() bool {
		must(t, os.WriteFile(lastPID, []byte(strconv.Itoa(heir-1)), 0))
		cmd := exec.Command(tail, "-f", "/dev/null")
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		must(t, o.w.Do(cmd.Start))
		end := func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if cmd.Process.Pid != heir { // somebody was quicker
			end()
			return false
		}
		t.Cleanup(end)
		return true
	})
	o.becomes(leader)
	o.check()
}

// testInFlight: nobody has a listener that was sent and not received yet.
func testInFlight(t *testing.T) {
	o := observe(t, "flight")
	o.await("it is under way", func() bool { return o.isHeldBy() })
	o.becomes()
	must(t, unix.Kill(o.leader, unix.SIGUSR1))
	o.await("it arrives", func() bool { return len(o.truth()) == 1 })
	o.becomes(holds(o.leader, "lead-flight", "listener")) // it called listen(), whatever became of the socket since
	o.check()
}

// testMPTCP: packets meet the TCP socket inside an MPTCP one, which is in no file.
func testMPTCP(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/mptcp/enabled"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("this kernel has no MPTCP")
	}
	const drops = 3
	w := newWorld(t)
	must(t, w.Sysctl("net.mptcp.enabled", "1"))
	tr := start(t, "--netns", w.Path())
	server := startServer(t, w, "mptcp", server.ListenConfig{Addr: anyAddr(port), Backlog: 3,
		MPTCP: true, Accept: true, Pause: time.Hour})
	must(t, w.Handshakes(t.Context(), server4, 1))
	c := &crew{t: t, w: w}
	c.await("it accepts", func() bool { return len(c.connected()) == 1 })
	named := func(r *record, _ *tracer) bool {
		return len(r.Processes) == 1 && r.Processes[0].Role == "acceptor"
	}
	first := loseUntil(t, func(n int) { loseSome(t, w, n) }, []*tracer{tr}, named)
	loseSome(t, w, drops)
	for i, r := range tr.stop().wantOwner(w, first+drops, "mptcp", server.PID) {
		if i >= first && !named(&r, tr) {
			t.Errorf("record %d: processes %+v", i, r.Processes)
		}
	}
}

// observed is a server whose full listener is traced since before it was opened.
type observed struct {
	*crew
	tr    *tracer
	lost  int
	steps []step
}

// step says what records show from a time on.
type step struct {
	want  []string
	from  int // record
	since time.Time
}

func observe(t *testing.T, serve string) *observed {
	t.Helper()
	w := newWorld(t)
	must(t, w.Sysctl("net.core.somaxconn", "3"))
	tr := start(t, "--netns", w.Path(), "--rate", "0")
	c := startCrew(t, w, helperServer(serve)(t))
	c.await("it listens", func() bool { return queuesOf(t, w, port, 0).listening })
	return &observed{crew: c, tr: tr}
}

// heir waits for the second process to hold the listener, and to be what it will be.
func (o *observed) heir(comm string) (pid int) {
	o.t.Helper()
	o.await("it starts "+comm, func() bool {
		for _, list := range o.truth() {
			for _, p := range list {
				if p.Comm == comm {
					pid = p.PID
				}
			}
		}
		return pid != 0
	})
	return pid
}

// isHeldBy reports whether these alone hold the listener.
func (o *observed) isHeldBy(want ...process) bool {
	o.t.Helper()
	of := o.truth()
	return truth{0: want}.equal(truth{0: of.processes(of.inodes()...)})
}

func holds(pid int, comm, role string) string { return fmt.Sprintf("%d %s %s", pid, comm, role) }

func shown(r *record) []string {
	var list []string
	for _, p := range r.Processes {
		list = append(list, holds(p.PID, p.Comm, p.Role))
	}
	slices.Sort(list)
	return list
}

// becomes loses SYNs until a record shows what is so since now.
func (o *observed) becomes(want ...string) {
	o.t.Helper()
	slices.Sort(want)
	since := time.Now()
	var last *record
	for n := o.lost; ; {
		loseSome(o.t, o.w, 1)
		o.lost++
		if last = awaitDrops(o.tr, o.lost); slices.Equal(shown(last), want) {
			o.t.Logf("%v after %v and %d records", want,
				time.Since(since).Round(time.Millisecond), o.lost-n)
			break
		}
		if time.Since(since) > patience {
			o.t.Fatalf("after %v records show %v, want %v", patience, shown(last), want)
		}
		time.Sleep(50 * time.Millisecond)
	}
	o.steps = append(o.steps, step{want, o.lost - 1, since})
}

// check ends the trace. Each record shows what was so then, or, for a while, before.
func (o *observed) check() {
	t := o.t
	t.Helper()
	const more = 3
	loseSome(t, o.w, more)
	awaitDrops(o.tr, o.lost+more)
	a := o.tr.stop()
	a.wantRow(o.w.NetNS(), "ListenOverflows", o.lost+more, 0)
	records := a.of(o.w.NetNS())
	if len(records) != o.lost+more {
		t.Fatalf("%d records, want %d", len(records), o.lost+more)
	}
	for k, s := range o.steps {
		end := len(records)
		if k+1 < len(o.steps) {
			next := o.steps[k+1]
			for end = next.from; end > s.from &&
				records[end-1].Time.After(next.since.Add(staleFor)); end-- {
				t.Errorf("record %d: %v later it shows %v, not %v", end-1,
					records[end-1].Time.Sub(next.since),
					shown(&records[end-1]), next.want)
			}
		}
		for i := s.from; i < end; i++ {
			if got := shown(&records[i]); !slices.Equal(got, s.want) {
				t.Errorf("record %d shows %v, want %v", i, got, s.want)
			}
		}
	}
}
