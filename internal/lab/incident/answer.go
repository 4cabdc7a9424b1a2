// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// answerIncidents are those in which the host itself drops its SYN-ACKs, or gets frames that are
// not its own.
func answerIncidents() []Incident {
	const every = 50 * time.Millisecond
	// refused is 20 clients a second whose answers something drops.
	refused := func(w *world.World, log func(string, ...any)) (traffic, error) {
		return steady(w, world.Server4, every, 1), innocent(w, log)
	}
	return []Incident{
		{
			Name:    "diagnose-answer-firewall",
			Title:   "the host's own firewall drops the answers",
			Finding: "return_path_lost",
			Explain: "nftables drops the SYN-ACKs to 20 clients a second in the output hook; none leaves.",
			Names:   []string{"netfilter at output"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.FirewallAnswers(world.Server4,
					world.HookOutput); err != nil {
					return nil, err
				}
				return refused(w, log)
			},
		},
		{
			Name:    "diagnose-answer-postrouting",
			Title:   "the answers are dropped after routing",
			Finding: "return_path_lost",
			Explain: "diagnose-answer-firewall with the postrouting hook.",
			Names:   []string{"netfilter at postrouting"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.FirewallAnswers(world.Server4,
					world.HookPostrouting); err != nil {
					return nil, err
				}
				return refused(w, log)
			},
		},
		{
			Name:    "diagnose-ack-firewall",
			Title:   "the host's own firewall drops the handshakes' ACKs",
			Finding: "return_path_lost",
			Explain: "nftables drops what 20 clients a second send after their SYN, as 'ct state invalid drop' may: they take themselves for connected.",
			Names: []string{
				"clients' segments without SYN dropped by netfilter at input"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Rule(world.Server4, world.HookInput, world.FlagACK,
					world.Drop().Verdict); err != nil {
					return nil, err
				}
				return refused(w, log)
			},
		},
		{
			Name:    "diagnose-answer-cgroup",
			Title:   "a cgroup's program drops the answers",
			Finding: "return_path_lost",
			Explain: "The server runs in a cgroup whose egress program drops all that its sockets send, as systemd's IPAddressDeny=any does.",
			Names:   []string{"a cgroup's egress program"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				c, err := w.NewCgroup()
				if err != nil {
					return nil, err
				}
				if err := attachEgress(w, c); err != nil {
					return nil, err
				}
				s, err := server.Start(w,
					server.Config{Comm: []byte("lab-innocent"), Cgroup: c.Dir,
						Listeners: []server.ListenConfig{{Addr: world.Any4,
							Backlog: 512, Accept: true}}})
				if err != nil {
					return nil, err
				}
				log("process %d accepts at once, in a cgroup that may send nothing",
					s.PID)
				return steady(w, world.Server4, every, 1), nil
			},
		},
		{
			Name:    "diagnose-answer-tc",
			Title:   "a program on the device drops the answers",
			Finding: "return_path_lost",
			Explain: "A tcx program drops whatever is sent through the device.",
			Names:   []string{"tc at egress of " + world.TUNName},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := attachTCXEgress(w, world.TUNName); err != nil {
					return nil, err
				}
				return refused(w, log)
			},
		},
		{
			Name:    "diagnose-answer-neighbour",
			Title:   "the clients' router does not answer ARP",
			Finding: "return_path_lost",
			Explain: "20 clients a second come through an Ethernet device whose other side never answers ARP: the SYN-ACKs wait for an address, and are dropped.",
			Names:   []string{"the neighbour table of lab1"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				e, err := w.Ethernet("lab1")
				if err != nil {
					return nil, err
				}
				if err := w.Do(func() error {
					return world.Configure4("lab1",
						netip.AddrFrom4([4]byte{10, 98, 0, 1}), 24)
				}); err != nil {
					return nil, err
				}
				n := uint16(0)
				c := &crowd{w: w, server: world.Server4, through: e, deaf: true,
					local: func() netip.AddrPort {
						n++
						return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 98, 0,
							2}), 20000+n)
					}}
				return c.steady(every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-other-mac", Title: "frames for another host",
			Finding: "no_syn_arrived",
			Explain: "The SYNs of 20 clients a second come in frames for another MAC address, as from a router whose ARP entry is stale.",
			Names:   []string{"02:00:00:00:00:99", "lab1"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				e, err := w.Ethernet("lab1")
				if err != nil {
					return nil, err
				}
				e.Address = []byte{2, 0, 0, 0, 0, 0x99}
				c := &crowd{w: w, server: world.Server4, through: e}
				return c.steady(every, 1), innocent(w, log)
			},
		},
	}
}

// attachEgress lets the cgroup's sockets send nothing.
func attachEgress(w *world.World, c *world.Cgroup) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab_egress", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return world.Untaken("cgroup_skb", err)
	}
	w.Keep(program)
	attached, err := link.AttachRawLink(link.RawLinkOptions{Target: int(c.Dir.Fd()),
		Program: program, Attach: ebpf.AttachCGroupInetEgress})
	if err != nil {
		return world.Untaken("cgroup_skb", err)
	}
	w.Keep(attached)
	return nil
}

// attachTCXEgress lets nothing be sent through the device.
func attachTCXEgress(w *world.World, device string) error {
	const drop = 2 // TCX_DROP
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab_tc_drop", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, drop), asm.Return()},
	})
	if err != nil {
		return world.Untaken("tcx", err)
	}
	w.Keep(program)
	return w.Do(func() error {
		index, err := world.DeviceIndex(device)
		if err != nil {
			return err
		}
		attached, err := link.AttachTCX(link.TCXOptions{Program: program, Interface: index,
			Attach: ebpf.AttachTCXEgress})
		if err != nil {
			return world.Untaken("tcx", err)
		}
		w.Keep(attached)
		return nil
	})
}
