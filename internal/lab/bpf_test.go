// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func TestMemberOf(t *testing.T) {
	number := &btf.Int{Name: "u16", Size: 2}
	pair := &btf.Struct{Members: []btf.Member{{Name: "remote", Type: number}, {Name: "local", Type: number, Offset: 16}}}
	either := &btf.Union{Members: []btf.Member{{Name: "both", Type: &btf.Int{Size: 4}}, {Type: pair}}}
	outer := &btf.Typedef{Type: &btf.Struct{Members: []btf.Member{
		{Name: "first", Type: number}, {Type: either, Offset: 64}, {Name: "named", Type: pair, Offset: 96},
	}}}
	for name, want := range map[string]btf.Bits{"first": 0, "both": 64, "remote": 64, "local": 80, "named": 96} {
		if m, ok := memberOf(outer, name); !ok || m.Offset != want || m.Name != name {
			t.Errorf("%s: got %s at bit %d (%t), want %d", name, m.Name, m.Offset, ok, want)
		}
	}
	if m, ok := memberOf(outer, "none"); ok {
		t.Errorf("found a member that is not there at bit %d", m.Offset)
	}
}

// TestRefuseIngress runs the program on packets, without a cgroup.
func TestRefuseIngress(t *testing.T) {
	for _, f := range []family{family4, family6} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress, License: "GPL",
			Instructions: refuseIngress(f, []refusal{{port, flagSYN}, {port + 1, flagACK}}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		for _, packet := range []struct {
			port  uint16
			flags uint8
			want  uint32
		}{
			{port, flagSYN, 0}, {port, flagACK, 1}, {port, flagSYN | flagACK, 1},
			{port + 1, flagSYN, 1}, {port + 1, flagACK, 0}, {port + 1, flagACK | flagPSH, 1},
			{port + 2, flagSYN, 1}, {port + 2, flagACK, 1},
		} {
			to := at(f.server, packet.port)
			ethernet := append(make([]byte, 12), 0x08, 0x00)
			if f.ipv6() {
				ethernet = append(make([]byte, 12), 0x86, 0xdd)
			}
			got, err := program.Run(&ebpf.RunOptions{
				Data: append(ethernet, segment{src: at(f.server, 20000), dst: to, flags: packet.flags}.marshal()...),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got != packet.want {
				t.Errorf("flags %#x to %s: got %d, want %d", packet.flags, to, got, packet.want)
			}
		}
	}
}

// TestCgroup looks for a server's private cgroup from outside, before and after.
func TestCgroup(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	c, err := w.newCgroup()
	if errors.Is(err, ErrCannotHold) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := w.StartServer(ServerConfig{cgroup: c.dir, Listeners: []ListenConfig{{Addr: any4, Backlog: backlog}}})
	if err != nil {
		t.Fatal(err)
	}
	member, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", server.PID))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(member), "/"+c.name+"\n") {
		t.Errorf("the server's cgroups are %q, want %s among them", member, c.name)
	}
	if now, err := os.ReadFile("/proc/self/mounts"); err != nil || string(now) != string(mounts) {
		t.Errorf("the mounts of this process changed (%v)", err)
	}
	all, err := mountCgroups()
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(all.Fd()), c.name, &st, 0); err != nil {
		t.Errorf("the cgroup cannot be seen by another mount: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstatat(int(all.Fd()), c.name, &st, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the cgroup is left behind (%v)", err)
	}
}

// TestDropSYNs runs the program on packets, without a device.
func TestDropSYNs(t *testing.T) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: dropSYNs(ethernetHeader, port)})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	client := at(server4, 20000)
	syn := segment{src: client, dst: at(server4, port), flags: flagSYN}.marshal()
	udp := append([]byte{}, syn...)
	udp[9] = unix.IPPROTO_UDP
	for _, tt := range []struct {
		name   string
		packet []byte
		want   uint32
	}{
		{"SYN", syn, dropXDP},
		{"SYN with options", segment{src: client, dst: at(server4, port), flags: flagSYN, options: synOptions()}.marshal(), dropXDP},
		{"SYN-ACK", segment{src: client, dst: at(server4, port), flags: flagSYN | flagACK}.marshal(), passXDP},
		{"ACK", segment{src: client, dst: at(server4, port), flags: flagACK}.marshal(), passXDP},
		{"SYN to another port", segment{src: client, dst: at(server4, port+1), flags: flagSYN}.marshal(), passXDP},
		{"IPv6", segment{src: at(server6, 20000), dst: at(server6, port), flags: flagSYN}.marshal(), passXDP},
		{"no TCP", udp, passXDP},
		{"cut short", syn[:39], passXDP},
	} {
		got, err := program.Run(&ebpf.RunOptions{Data: append(append(make([]byte, 12), 0x08, 0x00), tt.packet...)})
		if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
