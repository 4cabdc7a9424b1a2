package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SNMP is the counters of one network namespace by the names that nstat prints:
// those of TcpExt bare, others with their group before them (TcpInCsumErrors,
// IpExtInNoRoutes). One that the kernel does not have is not in it.
type SNMP map[string]uint64

// ErrOtherNetNS says that a process left the network namespace that was to be
// read through it, or that its PID is another process's now.
var ErrOtherNetNS = errors.New("the process is in another network namespace now")

// ReadSNMP reads the counters of the network namespace with that inode through
// one of the processes in it; proc is where procfs is mounted. Errors wrap
// fs.ErrNotExist for a process that is gone, fs.ErrPermission, or ErrOtherNetNS.
func ReadSNMP(proc string, pid uint32, inode uint64) (SNMP, error) {
	dir := filepath.Join(proc, strconv.FormatUint(uint64(pid), 10))
	counters, err := readSNMP(filepath.Join(dir, "net"))
	if err != nil {
		return nil, err
	}
	// Asked after, because each file was opened by a path that names the PID.
	have, err := netnsOf(dir)
	if err != nil {
		return nil, err
	}
	if have != inode {
		return nil, fmt.Errorf("read counters through process %d: %w", pid, ErrOtherNetNS)
	}
	return counters, nil
}

// EnterSNMP reads the counters of a network namespace that has no process, by
// entering it with a thread that then ends. It takes CAP_SYS_ADMIN.
func EnterSNMP(path string, inode uint64) (SNMP, error) {
	type answer struct {
		counters SNMP
		err      error
	}
	done := make(chan answer, 1)
	go onThread(func() {
		counters, err := enterSNMP(path, inode)
		done <- answer{counters, err}
	})
	a := <-done
	return a.counters, a.err
}

// onThread runs f on a thread that ends with its goroutine, whatever f made of it.
// The main thread will not do: it cannot end, and /proc/PID is what it is.
func onThread(f func()) {
	runtime.LockOSThread() // not unlocked: so the thread ends
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() { // while this goroutine holds the main thread
		defer close(done)
		onThread(f)
	}()
	<-done
}

func enterSNMP(path string, inode uint64) (SNMP, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	if have, err := Inode("/proc/thread-self/ns/net"); err != nil || have != inode {
		return nil, errors.Join(ErrOtherNetNS, err)
	}
	return readSNMP("/proc/thread-self/net")
}

// readSNMP reads the three files of a /proc/PID/net. A kernel without IPv6 has
// no snmp6.
func readSNMP(dir string) (SNMP, error) {
	counters := make(SNMP, 512)
	for _, name := range []string{"netstat", "snmp"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		counters.addPairs(text)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "snmp6")); err == nil {
		counters.addLines(text)
	}
	return counters, nil
}

// addPairs reads netstat and snmp: lines of names, each with one of values after
// it, both with the group in front. What is not a count, such as Tcp's MaxConn of
// -1, is left out.
func (c SNMP) addPairs(text []byte) {
	var names []string
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		if len(names) == 0 || names[0] != fields[0] {
			names = fields
			continue
		}
		group := strings.TrimSuffix(fields[0], ":")
		if group == "TcpExt" {
			group = ""
		}
		for i := 1; i < min(len(names), len(fields)); i++ {
			c.add(group+names[i], fields[i])
		}
		names = nil
	}
}

// addLines reads snmp6: a name and a value in each line, the group in the name.
func (c SNMP) addLines(text []byte) {
	for line := range bytes.Lines(text) {
		if fields := strings.Fields(string(line)); len(fields) == 2 {
			c.add(fields[0], fields[1])
		}
	}
}

func (c SNMP) add(name, value string) {
	if n, err := strconv.ParseUint(value, 10, 64); err == nil {
		c[name] = n
	}
}
