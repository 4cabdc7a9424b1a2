// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
)

// commEnv turns the test binary into a process that is called by its value,
// holds what it inherited, and lives until its standard input ends.
const commEnv = "SYNSPY_OWNER_COMM"

// containerID is as runtimes make them.
const containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestMain(m *testing.M) {
	if comm, ok := os.LookupEnv(commEnv); ok {
		// What prctl(PR_SET_NAME) does, but to the main thread, whichever this
		// goroutine runs on.
		if err := os.WriteFile("/proc/self/comm", []byte(comm), 0); err != nil {
			panic(err)
		}
		if _, err := os.Stdout.WriteString("ready\n"); err != nil {
			panic(err)
		}
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// holderProcess starts a process that inherits the listener, and returns it
// with a function that ends it.
func holderProcess(t *testing.T, comm string, ln *os.File) (pid uint32, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), commEnv+"="+comm)
	cmd.ExtraFiles = []*os.File{ln}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = stdin.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return uint32(cmd.Process.Pid), end
}

func listenTCP(t *testing.T) (ln *os.File, inode uint64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return f, st.Ino
}

func find(list []event.Process, pid uint32) *event.Process {
	if i := slices.IndexFunc(list, func(p event.Process) bool { return p.PID == pid }); i >= 0 {
		return &list[i]
	}
	return nil
}

// testCgroup makes a cgroup named by its last element and moves the process
// into it, in the first hierarchy that allows it.
func testCgroup(t *testing.T, tab *Table, hierarchy string, pid uint32, name string) string {
	t.Helper()
	i := slices.IndexFunc(tab.proc.Mounts, func(m cgroup.Mount) bool {
		return m.Root == "/" && (hierarchy == cgroup.V2 && m.V2 ||
			slices.Contains(m.Options, hierarchy))
	})
	if i < 0 {
		t.Skipf("no hierarchy %q is mounted here", hierarchy)
	}
	path := "/synspy-test-" + strconv.Itoa(os.Getpid()) + "/" + name
	point := tab.proc.Mounts[i].Point
	dir := filepath.Join(point, path)
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(point, "cgroup.procs"),
			[]byte(strconv.Itoa(int(pid))), 0)
		for d := dir; d != point; d = filepath.Dir(d) {
			if err := unix.Rmdir(d); err != nil {
				t.Errorf("remove %s: %v", d, err)
			}
		}
	})
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("cgroupfs is not ours to write: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(int(pid))),
		0); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRealProcess(t *testing.T) {
	for _, h := range []string{cgroup.V2, "name=systemd"} {
		t.Run("hierarchy "+h, func(t *testing.T) {
			ln, inode := listenTCP(t)
			const hostile = "\x1b[31m)\xff S 1" // 15 bytes at most
			pid, end := holderProcess(t, hostile, ln)
			tab := New("/proc", nil)
			path := testCgroup(t, tab, h, pid, "docker-"+containerID+".scope")
			t.Cleanup(end) // before the cgroup is removed

			holders, _, err := ScanProc("/proc",
				func(i uint64) bool { return i == inode })
			if err != nil {
				t.Fatal(err)
			}
			if len(holders) != 2 { // it and us
				t.Fatalf("holders: %+v", holders)
			}
			for i := range holders {
				holders[i].Socket = 1
			}
			tab.Replace(holders)
			p := find(tab.Processes(1, 0), pid)
			if p == nil || p.Comm != hostile || p.Role != event.RoleHolder {
				t.Fatalf("got %+v", p)
			}
			if p.Cgroup == nil || p.Cgroup.Path != path || p.Cgroup.ID == 0 {
				t.Errorf("cgroup: %+v, want %s", p.Cgroup, path)
			}
			if p.Container == nil || p.Container.ID != containerID ||
				p.Container.Runtime != "docker" {
				t.Errorf("container: %+v", p.Container)
			}
			if got, err := tab.FindCgroup(path); err != nil || got != *p.Cgroup {
				t.Errorf("FindCgroup: %v, %v", got, err)
			}
			for filter, want := range map[string]bool{
				path: true, filepath.Dir(path): true,
				"/synspy-test-*/docker-*": true, "/elsewhere": false,
			} {
				if got, _ := tab.Match(1, Filter{Cgroup: filter}); got != want {
					t.Errorf("--cgroup %s: %t", filter, got)
				}
			}

			// Dead, it is still who held it and where it ran.
			end()
			tab.Replace(holders)
			if p := find(tab.Processes(1, 0), pid); p == nil || p.Cgroup == nil ||
				p.Cgroup.Path != path {
				t.Errorf("after its death: %+v", p)
			}
		})
	}
}

// TestReusedPID: the holder the kernel told of has gone and another process has
// its PID. It is named as it was, and the newcomer's cgroup is not its.
func TestReusedPID(t *testing.T) {
	ln, inode := listenTCP(t)
	pid, end := holderProcess(t, "newcomer", ln)
	defer end()
	tab := New("/proc", nil)
	st, err := tab.proc.Stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		start uint64
		known bool
	}{
		"same":  {tab.proc.Nanoseconds(st.Start), true},
		"other": {tab.proc.Nanoseconds(st.Start - 1), false},
	} {
		tab.Replace([]Holder{{Socket: 1, Inode: inode, PID: pid, Comm: "departed",
			StartNs: c.start}})
		p := find(tab.Processes(1, 0), pid)
		if p == nil || p.Comm != "departed" || (p.Cgroup != nil) != c.known {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestOpenedIsRecognised: an event has no start time. The process must be
// called the same, or hold the socket, to be taken for it.
func TestOpenedIsRecognised(t *testing.T) {
	ln, inode := listenTCP(t)
	pid, end := holderProcess(t, "server", ln)
	for i, c := range []struct {
		inode uint64
		comm  string
		known bool
	}{
		{0, "server", true},
		{inode, "a-thread", true},
		{0, "a-thread", false},
		{inode + 1<<32, "a-thread", false},
	} {
		tab := New("/proc", nil)
		tab.Opened(1, c.inode, pid, c.comm)
		p := find(tab.Processes(1, 0), pid)
		if p == nil || p.Role != event.RoleListener || (p.Cgroup != nil) != c.known {
			t.Errorf("%d: %+v", i, p)
		}
	}
	end()
	tab := New("/proc", nil)
	tab.Opened(1, inode, pid, "server")
	if p := find(tab.Processes(1, 0), pid); p == nil || p.Cgroup != nil {
		t.Errorf("after its death: %+v", p)
	}
	// A process of that PID that started later is another one.
	tab.Replace([]Holder{{Socket: 1, Inode: inode, PID: pid, Comm: "next", StartNs: bootNs() +
		1e9}})
	if p := find(tab.Processes(1, 0), pid); p == nil || p.Role != event.RoleHolder {
		t.Errorf("its successor: %+v", p)
	}
}

func TestScanProc(t *testing.T) {
	ln, inode := listenTCP(t)
	pid, end := holderProcess(t, "scanned", ln)
	all, _, err := ScanProc("/proc", nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(h Holder) bool { return h.PID == pid && h.Inode == inode })
	if i < 0 {
		t.Fatal("not found")
	}
	h := all[i]
	if h.Comm != "scanned" || h.Socket != 0 || h.StartNs == 0 || h.StartNs > bootNs() {
		t.Errorf("%+v", h)
	}
	end()
	some, _, err := ScanProc("/proc", func(i uint64) bool { return i == inode })
	if err != nil || len(some) != 1 || int(some[0].PID) != os.Getpid() {
		t.Errorf("after its death: %+v, %v", some, err)
	}
	if _, _, err := ScanProc(filepath.Join(t.TempDir(), "none"), nil); err == nil ||
		!strings.Contains(err.Error(), "none") {
		t.Errorf("no /proc: %v", err)
	}
}

// TestCachedAnswer: once asked about, a listener costs no allocation a record, and its process is
// not read again: neither one that is known nor one that ended, or is not recognised.
func TestCachedAnswer(t *testing.T) {
	_, inode := listenTCP(t)
	tab := New("/proc", nil)
	tab.Opened(1, inode, uint32(os.Getpid()), "owner.test")
	tab.Opened(2, inode+1, uint32(os.Getpid()), "another's name")
	var room Answer
	for socket := range uint64(2) {
		if n := testing.AllocsPerRun(100, func() { tab.Ask(&room, socket+1, 0) }); n > 0 {
			t.Errorf("socket %d: %v allocations", socket+1, n)
		}
	}
}
