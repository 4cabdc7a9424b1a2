// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

func TestSNMPParsers(t *testing.T) {
	c := make(SNMP)
	c.addPairs([]byte(`TcpExt: SyncookiesSent ListenDrops New
TcpExt: 1 18446744073709551615 3
IpExt: InNoRoutes InCsumErrors
IpExt: 4 5
Tcp: MaxConn InCsumErrors Missing
Tcp: -1 6
Lonely: A B
Odd: C
Odd: 7 8 9

`), nil)
	c.addLines([]byte("Ip6InReceives                   \t2\nIcmp6OutType135 \t12\nnonsense\nIp6Bad\tx\nIp6 3 4\n"), nil)
	want := SNMP{"SyncookiesSent": 1, "ListenDrops": math.MaxUint64, "New": 3,
		"IpExtInNoRoutes": 4, "IpExtInCsumErrors": 5,
		"TcpInCsumErrors": 6, "OddC": 7, "Ip6InReceives": 2, "Icmp6OutType135": 12}
	if !maps.Equal(c, want) {
		t.Errorf("got  %v\nwant %v", c, want)
	}
}

func FuzzSNMP(f *testing.F) {
	f.Add([]byte("TcpExt: A B\nTcpExt: 1 2\n"))
	f.Add([]byte("A:\nA:\nA: B"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		c := make(SNMP)
		c.addPairs(text, nil)
		c.addLines(text, nil)
	})
}

// TestSNMPRead finds the ledger's counters on every kernel, by the names it has
// them under.
func TestSNMPRead(t *testing.T) {
	own, err := Inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	counters, err := NewSNMPReader().Read("/proc", uint32(os.Getpid()), own)
	if err != nil {
		t.Fatal(err)
	}
	for c := range event.NumCounters {
		if _, ok := counters[c.String()]; !ok {
			t.Errorf("no %v", c)
		}
	}
	for _, name := range []string{"TcpInCsumErrors", "TcpOutRsts", "IPReversePathFilter",
		"IpExtInNoRoutes", "PAWSEstab"} {
		if _, ok := counters[name]; !ok {
			t.Errorf("no %s", name)
		}
	}
	if _, err := NewSNMPReader().Read("/proc", uint32(os.Getpid()), own+1); !errors.Is(err,
		ErrOtherNetNS) {
		t.Errorf("of another namespace: %v", err)
	}
	if _, err := NewSNMPReader().Read("/proc", math.MaxInt32, own); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("of no process: %v", err)
	}
}

// TestNetNamespaces finds a namespace that only a thread is in, and once, whoever
// else is there.
func TestNetNamespaces(t *testing.T) {
	own, err := netnsOf("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	other, tid := threadElsewhere(t)
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = child.Process.Kill(), child.Wait() }()
	list, _, err := NetNamespaces("/proc")
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[uint64]int)
	for _, ns := range list {
		times[ns.Inode]++
	}
	if times[own] != 1 || times[other] != 1 {
		t.Errorf("own namespace %d and other %d are there %d and %d times", own, other,
			times[own], times[other])
	}
	for _, ns := range list {
		switch ns.Inode {
		case own:
			for _, pid := range []int{os.Getpid(), child.Process.Pid} {
				if !slices.Contains(ns.PIDs, uint32(pid)) ||
					!slices.Contains(ns.Through, uint32(pid)) {
					t.Errorf("process %d is not in %+v", pid, ns)
				}
			}
		case other:
			if !slices.Equal(ns.PIDs, []uint32{tid}) {
				t.Errorf("thread %d is not alone in %+v", tid, ns)
			}
			if c, err := NewSNMPReader().Read("/proc", tid, other); err != nil ||
				c["TcpOutRsts"] != 0 {
				t.Errorf("read through a thread: %d resets, %v", c["TcpOutRsts"],
					err)
			}
		}
		if !slices.IsSorted(ns.PIDs) {
			t.Errorf("not sorted: %v", ns.PIDs)
		}
	}
}

// threadElsewhere keeps a thread in a namespace of its own until the test ends.
func threadElsewhere(t *testing.T) (inode uint64, tid uint32) {
	t.Helper()
	type place struct {
		inode uint64
		tid   uint32
		err   error
	}
	ready, stop := make(chan place), make(chan struct{})
	go onThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		inode, err2 := Inode("/proc/thread-self/ns/net")
		ready <- place{inode, uint32(unix.Gettid()), errors.Join(err, err2)}
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	p := <-ready
	if p.err != nil {
		t.Fatalf("make a network namespace (as root): %v", p.err)
	}
	return p.inode, p.tid
}

// TestSNMPEnter reads a namespace that has no process any more.
func TestSNMPEnter(t *testing.T) {
	inode, tid := threadElsewhere(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", tid), path, "", unix.MS_BIND,
		""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(path, unix.MNT_DETACH) }()
	before, err := netnsOf("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewSNMPReader().Enter(path, inode)
	if _, ok := c["ListenDrops"]; err != nil || !ok || c["TcpOutRsts"] != 0 {
		t.Errorf("%d counters, %d resets, %v", len(c), c["TcpOutRsts"], err)
	}
	if _, err := NewSNMPReader().Enter(path, inode+1); !errors.Is(err, ErrOtherNetNS) {
		t.Errorf("another namespace: %v", err)
	}
	if after, err := netnsOf("/proc/self"); err != nil || after != before {
		t.Errorf("the process is in %d now, %v", after, err)
	}
}

func TestComm(t *testing.T) {
	if got := Comm("/proc", uint32(os.Getpid())); got == "" || got[len(got)-1] == '\n' {
		t.Errorf("own name %q", got)
	}
	if got := Comm("/proc", math.MaxInt32); got != "" {
		t.Errorf("nobody is called %q", got)
	}
}

// TestStarted: a task is known by its PID and this together.
func TestStarted(t *testing.T) {
	first, self := Started("/proc", 1), Started("/proc", uint32(os.Getpid()))
	if first == 0 || self <= first {
		t.Errorf("process 1 began at %d, this one at %d", first, self)
	}
	if gone := Started("/proc", math.MaxInt32); gone != 0 {
		t.Errorf("nobody began at %d", gone)
	}
}

// TestIPVS: what IPVS took in is the second number of the third line, in hexadecimal, and asked for
// only by name.
func TestIPVS(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"netstat": "TcpExt: A\nTcpExt: 1\n", "snmp": "Ip: ForwDatagrams\nIp: 7\n",
		"ip_vs_stats": "   Total Incoming Outgoing         Incoming         Outgoing\n   Conns  Packets  Packets            Bytes            Bytes\n" +
			"      1A       2B        0              5C0                0\n\n Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := NewSNMPReader("IpForwDatagrams", IPVSPackets).readDir(dir)
	if err != nil || got["IpForwDatagrams"] != 7 || got[IPVSPackets] != 0x2b {
		t.Errorf("%v, %v", got, err)
	}
	if all, err := NewSNMPReader().readDir(dir); err != nil || len(all) != 2 {
		t.Errorf("all counters: %v, %v", all, err)
	}
	if err := os.Remove(filepath.Join(dir, "ip_vs_stats")); err != nil {
		t.Fatal(err)
	}
	if got, err := NewSNMPReader("IpForwDatagrams", IPVSPackets).readDir(dir); err != nil ||
		len(got) != 1 {
		t.Errorf("without IPVS: %v, %v", got, err)
	}
}
