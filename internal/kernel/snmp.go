// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// SNMP is the counters of one network namespace by the names that nstat prints:
// those of TcpExt bare, others with their group before them (TcpInCsumErrors,
// IpExtInNoRoutes). One that the kernel does not have is not in it.
type SNMP map[string]uint64

// ErrOtherNetNS says that a process left the network namespace that was to be
// read through it, or that its PID is another process's now.
var ErrOtherNetNS = errors.New("the process is in another network namespace now")

// SNMPReader reads the counters of one namespace after another, and leaves little
// garbage. Only one goroutine may use it at a time.
type SNMPReader struct {
	wanted map[string]string // each to itself, so that keys need not be made; nil: all
	buf    []byte
}

// NewSNMPReader makes a reader of the counters with these names, or without any of
// all counters.
func NewSNMPReader(names ...string) *SNMPReader {
	r := &SNMPReader{}
	if len(names) > 0 {
		r.wanted = make(map[string]string, len(names))
	}
	for _, name := range names {
		r.wanted[name] = name
	}
	return r
}

// Read reads the counters of the network namespace with that inode through one of
// the processes in it; proc is where procfs is mounted. Errors wrap fs.ErrNotExist
// for a process that is gone, fs.ErrPermission, or ErrOtherNetNS.
func (r *SNMPReader) Read(proc string, pid uint32, inode uint64) (SNMP, error) {
	dir := filepath.Join(proc, strconv.FormatUint(uint64(pid), 10))
	counters, err := r.readDir(filepath.Join(dir, "net"))
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

// Enter reads the counters of a network namespace that has no process, by
// entering it with a thread that then ends. It takes CAP_SYS_ADMIN.
func (r *SNMPReader) Enter(path string, inode uint64) (SNMP, error) {
	type answer struct {
		counters SNMP
		err      error
	}
	done := make(chan answer, 1)
	go onThread(func() {
		counters, err := r.enter(path, inode)
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

func (r *SNMPReader) enter(path string, inode uint64) (SNMP, error) {
	if err := enterNetNS(path, inode); err != nil {
		return nil, err
	}
	return r.readDir("/proc/thread-self/net")
}

// readDir reads the three files of a /proc/PID/net. A kernel without IPv6 has no
// snmp6.
func (r *SNMPReader) readDir(dir string) (SNMP, error) {
	counters := make(SNMP, max(len(r.wanted), 64))
	for _, name := range []string{"netstat", "snmp", "snmp6"} {
		text, err := r.readFile(filepath.Join(dir, name))
		switch {
		case name == "snmp6" && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read counters: %w", err)
		case name == "snmp6":
			counters.addLines(text, r.wanted)
		default:
			counters.addPairs(text, r.wanted)
		}
	}
	if _, ok := r.wanted[IPVSPackets]; ok {
		text, err := r.readFile(filepath.Join(dir, "ip_vs_stats")) // there with the module
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		counters.addIPVS(text)
	}
	return counters, nil
}

// IPVSPackets is the name by which a reader is asked for the packets that IPVS took in, which moves
// no counter of IP where it sends them on with their addresses changed. nstat does not print it,
// and it is not among all counters.
const IPVSPackets = "IPVSInPackets"

// addIPVS reads ip_vs_stats: two lines of headings, then the sums so far, in hexadecimal, the
// packets that came in second.
func (c SNMP) addIPVS(text []byte) {
	n := 0
	for line := range bytes.Lines(text) {
		if n++; n < 3 {
			continue
		}
		_, rest := cutField(line)
		packets, _ := cutField(rest)
		if count, err := strconv.ParseUint(string(packets), 16, 64); err == nil {
			c[IPVSPackets] = count
		}
		return
	}
}

// readFile reads a file of procfs into the reader's buffer. os.ReadFile, which is
// not told their size, asks the kernel many times.
func (r *SNMPReader) readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	text := r.buf[:0]
	for {
		text = slices.Grow(text, 8<<10)
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			r.buf = text
			return text, nil
		}
		text = text[:len(text)+n]
	}
}

// addPairs reads netstat and snmp: lines of names, each with one of values after
// it, both with the group in front. What is not a count, such as Tcp's MaxConn of
// -1, is left out.
func (c SNMP) addPairs(text []byte, wanted map[string]string) {
	var group, names []byte // of the line of names, if that was the last one
	for line := range bytes.Lines(text) {
		first, rest := cutField(line)
		if len(first) == 0 {
			continue
		}
		if !bytes.Equal(first, group) {
			group, names = first, rest
			continue
		}
		prefix := bytes.TrimSuffix(group, []byte(":"))
		if string(prefix) == "TcpExt" {
			prefix = nil
		}
		var name, value []byte
		for {
			name, names = cutField(names)
			value, rest = cutField(rest)
			if len(name) == 0 || len(value) == 0 {
				break
			}
			c.add(prefix, name, value, wanted)
		}
		group = nil
	}
}

// addLines reads snmp6: a name and a value in each line, the group in the name.
func (c SNMP) addLines(text []byte, wanted map[string]string) {
	for line := range bytes.Lines(text) {
		name, rest := cutField(line)
		value, rest := cutField(rest)
		if more, _ := cutField(rest); len(value) > 0 && len(more) == 0 {
			c.add(nil, name, value, wanted)
		}
	}
}

func (c SNMP) add(prefix, name, value []byte, wanted map[string]string) {
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		return
	}
	var buf [64]byte
	key := append(append(buf[:0], prefix...), name...)
	if wanted == nil {
		c[string(key)] = n
	} else if name, ok := wanted[string(key)]; ok {
		c[name] = n
	}
}

// cutField cuts the first word off a line; it is empty where there is none.
func cutField(line []byte) (field, rest []byte) {
	from := 0
	for from < len(line) && line[from] <= ' ' {
		from++
	}
	to := from
	for to < len(line) && line[to] > ' ' {
		to++
	}
	return line[from:to], line[to:]
}
