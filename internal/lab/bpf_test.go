// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/lab/world/worldtest"
)

// TestRefuseIngress runs the program on packets, without a cgroup.
func TestRefuseIngress(t *testing.T) {
	for _, f := range []world.Family{world.Family4, world.Family6} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress,
			License: "GPL",
			Instructions: world.RefuseIngress(f,
				[]world.Refusal{{Port: world.Port, Flags: world.FlagSYN},
					{Port: world.Port + 1, Flags: world.FlagACK}}),
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
			{world.Port, world.FlagSYN, 0}, {world.Port, world.FlagACK, 1}, {world.Port,
				world.FlagSYN | world.FlagACK, 1},
			{world.Port + 1, world.FlagSYN, 1}, {world.Port + 1, world.FlagACK,
				0}, {world.Port + 1, world.FlagACK | world.FlagPSH, 1},
			{world.Port + 2, world.FlagSYN, 1}, {world.Port + 2, world.FlagACK, 1},
		} {
			to := world.At(f.Server, packet.port)
			ethernet := append(make([]byte, 12), 0x08, 0x00)
			if f.IPv6() {
				ethernet = append(make([]byte, 12), 0x86, 0xdd)
			}
			got, err := program.Run(&ebpf.RunOptions{
				Data: append(ethernet, world.Segment{Src: world.At(f.Server, 20000),
					Dst: to, Flags: packet.flags}.Marshal()...),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got != packet.want {
				t.Errorf("flags %#x to %s: got %d, want %d", packet.flags, to, got,
					packet.want)
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
	w := worldtest.New(t)
	c, err := w.NewCgroup()
	if errors.Is(err, world.ErrCannotHold) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := server.Start(w,
		server.Config{Cgroup: c.Dir,
			Listeners: []server.ListenConfig{
				{Addr: world.Any4, Backlog: world.Backlog}}})
	if err != nil {
		t.Fatal(err)
	}
	member, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", server.PID))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(member), "/"+c.Name+"\n") {
		t.Errorf("the server's cgroups are %q, want %s among them", member, c.Name)
	}
	if now, err := os.ReadFile("/proc/self/mounts"); err != nil ||
		string(now) != string(mounts) {
		t.Errorf("the mounts of this process changed (%v)", err)
	}
	all, err := world.MountCgroups()
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(all.Fd()), c.Name, &st, 0); err != nil {
		t.Errorf("the cgroup cannot be seen by another mount: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstatat(int(all.Fd()), c.Name, &st, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the cgroup is left behind (%v)", err)
	}
}

// TestDropSYNs runs the program on packets, without a device.
func TestDropSYNs(t *testing.T) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: world.DropSYNs(world.EthernetHeader, world.Port)})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	client := world.At(world.Server4, 20000)
	syn := world.Segment{Src: client, Dst: world.At(world.Server4, world.Port),
		Flags: world.FlagSYN}.Marshal()
	udp := append([]byte{}, syn...)
	udp[9] = unix.IPPROTO_UDP
	for _, tt := range []struct {
		name   string
		packet []byte
		want   uint32
	}{
		{"SYN", syn, world.DropXDP},
		{"SYN with options",
			world.Segment{Src: client, Dst: world.At(world.Server4, world.Port),
				Flags:   world.FlagSYN,
				Options: world.SYNOptions()}.Marshal(), world.DropXDP},
		{"SYN-ACK", world.Segment{Src: client, Dst: world.At(world.Server4, world.Port),
			Flags: world.FlagSYN | world.FlagACK}.Marshal(), world.PassXDP},
		{"ACK", world.Segment{Src: client, Dst: world.At(world.Server4, world.Port),
			Flags: world.FlagACK}.Marshal(), world.PassXDP},
		{"SYN to another port",
			world.Segment{Src: client, Dst: world.At(world.Server4, world.Port+1),
				Flags: world.FlagSYN}.Marshal(), world.PassXDP},
		{"IPv6", world.Segment{Src: world.At(world.Server6, 20000),
			Dst: world.At(world.Server6,
				world.Port), Flags: world.FlagSYN}.Marshal(), world.PassXDP},
		{"no TCP", udp, world.PassXDP},
		{"cut short", syn[:39], world.PassXDP},
	} {
		got, err := program.Run(&ebpf.RunOptions{Data: append(append(make([]byte, 12), 0x08,
			0x00), tt.packet...)})
		if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
