// SPDX-License-Identifier: Apache-2.0

package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/kernel/kerneltest"
)

// TestWayIn: from a pod's namespace the way in leads through its node's, and from there to no other
// pod.
func TestWayIn(t *testing.T) {
	pod, node, other := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	var lxc0 int
	for name, end := range map[string]kerneltest.NetNS{"lxc0": pod, "lxc1": other} {
		fd, err := unix.Open(end.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		node.Do(t, func() error { return kerneltest.AddLink("veth", name, "eth0", fd) })
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
	node.Do(t, func() (err error) { lxc0, err = kerneltest.DeviceIndex("lxc0"); return err })
	read := func(inodes ...uint64) (*deviceReader, map[uint64]bool) {
		r := &deviceReader{missing: func(why error) { t.Errorf("missing: %v", why) }}
		r.readAll(inodes)
		through := make(map[uint64]bool)
		for _, ns := range r.read {
			through[ns.inode] = ns.through
		}
		return r, through
	}
	r, through := read(pod.Inode)
	if diff := cmp.Diff(map[uint64]bool{pod.Inode: false, node.Inode: true},
		through); diff != "" {
		t.Errorf("of a pod: read, and whether through it (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[deviceAt]bool{{node.Inode, uint32(lxc0)}: true},
		r.ends); diff != "" {
		t.Errorf("of a pod: other ends (-want +got):\n%s", diff)
	}
	own, err := kernel.Inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, concerned := range [][]uint64{nil, {own}} {
		if _, through = read(concerned...); len(through) != 1 || through[own] {
			t.Errorf("of %v: read %v, want %d alone", concerned, through, own)
		}
	}
}

// TestNoWayIn: what cannot be read is said.
func TestNoWayIn(t *testing.T) {
	var missing []string
	r := &deviceReader{missing: func(why error) { missing = append(missing, why.Error()) }}
	r.readAll([]uint64{7})
	if diff := cmp.Diff([]string{"the devices of network namespace 7 were not read: no way into it was found"}, missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	missing = nil
	for i := range maxDeviceNamespaces {
		r.read = append(r.read, &deviceNamespace{inode: uint64(100 + i)})
	}
	r.readEach([]uint64{100, 8, 9}, nil, false)
	if diff := cmp.Diff([]string{"the devices of 2 further network namespaces were not read"},
		missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

// TestListDevices: programs that packets on their way in do not meet are left out, and the likelier
// come first.
func TestListDevices(t *testing.T) {
	id := int32(3)
	both := []kernel.Taker{{Hook: kernel.HookTCIngress, ID: 1, Name: "in"},
		{Hook: kernel.HookTCEgress, ID: 2}, {Hook: kernel.HookNetkit, ID: 3}}
	in := evidence.Program{Hook: "tc ingress", ID: 1, Name: "in"}
	r := deviceReader{own: 1, ends: map[deviceAt]bool{{1, 5}: true}, read: []*deviceNamespace{
		{inode: 2, enter: evidence.Enter{PID: 812},
			devices: []kernel.Device{{Index: 1, Name: "lo"},
				{Index: 5, Name: "eth0", LinkNetNS: &id, Takers: both}}},
		{inode: 1, through: true, devices: []kernel.Device{
			{Index: 4, Name: "lxc0", LinkNetNS: &id, Takers: both}, {Index: 5,
				Name: "lxc1", LinkNetNS: &id, Takers: both},
			{Index: 6, Name: "eth0",
				Takers: []kernel.Taker{{Hook: kernel.HookTCEgress,
					ID: 9}}}, {Index: 7, Name: "eth1", Takers: both}}},
	}}
	list, read := r.list()
	want := []evidence.Device{
		{Name: "eth0", NetNS: 2, Enter: evidence.Enter{PID: 812},
			Programs: []evidence.Program{in}},
		{Name: "lxc1", Programs: []evidence.Program{in, {Hook: "tc egress", ID: 2},
			{Hook: "netkit", ID: 3}}},
		{Name: "eth1", Programs: []evidence.Program{in}},
		{Name: "lxc0", Programs: []evidence.Program{in}},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if *read != 6 {
		t.Errorf("read %d devices, want 6", *read)
	}
}
