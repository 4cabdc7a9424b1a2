// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace and who is in it.
type NetNS struct {
	Inode   uint64
	Names   []string // below /run/netns, sorted
	PIDs    []uint32 // processes and, where they are elsewhere, threads; ascending
	Through []uint32 // those of them that it can be read through
}

// NamedNetNS returns the path of a namespace's name.
func NamedNetNS(name string) string { return filepath.Join(named, name) }

// ProcessNetNS returns the path of a process's network namespace.
func ProcessNetNS(pid uint32) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// OwnNetNS returns the inode of the calling thread's network namespace.
func OwnNetNS() (uint64, error) { return Inode("/proc/thread-self/ns/net") }

// NetNamespaces lists the network namespaces that processes are in, or that have
// a name, by inode; proc is where procfs is mounted. Hidden is how many others
// there are of processes that did not tell theirs: it takes CAP_SYS_PTRACE to ask
// other users' processes.
func NetNamespaces(proc string) (list []NetNS, hidden int, err error) {
	pids, err := numbers(proc)
	if err != nil {
		return nil, 0, fmt.Errorf("list processes: %w", err)
	}
	found := make(map[uint64]*NetNS)
	var refused []uint32
	at := func(inode uint64) *NetNS {
		if found[inode] == nil {
			found[inode] = &NetNS{Inode: inode}
		}
		return found[inode]
	}
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.FormatUint(uint64(pid), 10))
		own, err := netnsOf(dir)
		if errors.Is(err, fs.ErrPermission) {
			refused = append(refused, pid)
		}
		if err != nil {
			continue // gone, or a zombie
		}
		ns := at(own)
		ns.PIDs, ns.Through = append(ns.PIDs, pid), append(ns.Through, pid)
		// A thread may have moved without its process.
		threads, err := numbers(filepath.Join(dir, "task"))
		if err != nil || len(threads) < 2 {
			continue
		}
		for _, tid := range threads {
			if tid == pid {
				continue
			}
			inode, err := netnsOf(
				filepath.Join(dir, "task", strconv.FormatUint(uint64(tid), 10)))
			if err == nil && inode != own {
				ns := at(inode)
				// /proc/TID works too, though it is not listed.
				ns.PIDs, ns.Through = append(ns.PIDs, tid), append(ns.Through, tid)
			}
		}
	}
	hidden = recognise(proc, refused, found)
	for name, inode := range namedNamespaces() {
		ns := at(inode)
		ns.Names = append(ns.Names, name)
	}
	for _, ns := range found {
		slices.Sort(ns.Names)
		slices.Sort(ns.PIDs)
		slices.Sort(ns.Through)
		list = append(list, *ns)
	}
	slices.SortFunc(list, func(a, b NetNS) int { return cmp.Compare(a.Inode, b.Inode) })
	return list, hidden, nil
}

// recognise gives processes that did not tell their namespace to those that are
// known, and counts the namespaces that remain. Anyone may see the number that
// procfs itself gave to /proc/PID/net/stat, and it made that for the namespace
// (proc_net_ns_init).
func recognise(proc string, refused []uint32, found map[uint64]*NetNS) (hidden int) {
	if len(refused) == 0 {
		return 0
	}
	number := func(pid uint32) (uint64, error) {
		return Inode(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "net/stat"))
	}
	known, unknown := make(map[uint64]*NetNS), make(map[uint64]bool)
	for _, ns := range found {
		if n, err := number(ns.Through[0]); err == nil {
			known[n] = ns
		}
	}
	for _, pid := range refused {
		n, err := number(pid)
		switch ns := known[n]; {
		case err != nil: // gone
		case ns != nil:
			ns.PIDs = append(ns.PIDs, pid)
		default:
			unknown[n] = true
		}
	}
	return len(unknown)
}

// netnsOf reads the inode from the link's text, net:[4026531840], which is
// cheaper than following it.
func netnsOf(dir string) (uint64, error) {
	var buf [64]byte
	path := filepath.Join(dir, "ns/net")
	n, err := unix.Readlink(path, buf[:])
	if err != nil {
		return 0, &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	text := strings.TrimSuffix(strings.TrimPrefix(string(buf[:n]), "net:["), "]")
	inode, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", path, err)
	}
	return inode, nil
}

// numbers lists the entries of a directory whose names are numbers: processes,
// threads.
func numbers(dir string) ([]uint32, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	names, err := file.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		return nil, err
	}
	var list []uint32
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			list = append(list, uint32(n))
		}
	}
	return list, nil
}

// namedNamespaces maps names to inodes. What ip netns left behind without a
// mount is a plain file and no namespace.
func namedNamespaces() map[string]uint64 {
	entries, err := os.ReadDir(named)
	if err != nil {
		return nil // nobody has ever named one
	}
	inodes := make(map[string]uint64, len(entries))
	for _, entry := range entries {
		if inode, err := netnsInode(NamedNetNS(entry.Name()), entry.Name()); err == nil {
			inodes[entry.Name()] = inode
		}
	}
	return inodes
}

// NetNSNames maps the inodes of the namespaces that have a name to the first of their names.
func NetNSNames() map[uint64]string {
	names := make(map[uint64]string)
	for name, inode := range namedNamespaces() {
		if have, ok := names[inode]; !ok || name < have {
			names[inode] = name
		}
	}
	return names
}

// Started returns when a process or thread began, in clock ticks since boot, 0 where
// it is gone. With its PID it names it for ever.
func Started(proc string, pid uint32) uint64 {
	id := strconv.FormatUint(uint64(pid), 10)
	text, err := os.ReadFile(filepath.Join(proc, id, "task", id, "stat"))
	if err != nil {
		return 0
	}
	// Fields are counted from behind the name, which may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	ticks, _ := strconv.ParseUint(string(fields[19]), 10, 64) // 0 if not a number
	return ticks
}

// Comm returns a process's or thread's name, "" where it is gone. It may hold any
// bytes.
func Comm(proc string, pid uint32) string {
	text, err := os.ReadFile(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(text), "\n")
}

// initPIDNamespace is PROC_PID_INIT_INO: the first PID namespace, which sees all others.
const initPIDNamespace = 0xEFFFFFFC

// SeesAllProcesses reports whether every process of this machine has a PID here. In a
// container it has not, and neither /proc nor an iterator shows the others.
func SeesAllProcesses() bool {
	inode, err := Inode("/proc/self/ns/pid")
	return err == nil && inode == initPIDNamespace
}
