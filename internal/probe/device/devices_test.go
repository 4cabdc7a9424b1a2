// SPDX-License-Identifier: Apache-2.0

package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/kernel/kerneltest"
)

// program loads one that only returns the verdict, until the test ends, and returns its ID as well.
func program(t *testing.T, name string, kind ebpf.ProgramType, verdict int32) (p *ebpf.Program,
	id uint32, err error) {
	t.Helper()
	p, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}})
	if err != nil {
		return nil, 0, err
	}
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	if err != nil {
		return nil, 0, err
	}
	of, ok := info.ID()
	if !ok {
		return nil, 0, errors.New("a program without an ID")
	}
	return p, uint32(of), nil
}

// TestDevices puts a program, or a filter, at every place of devices in a namespace of its own.
func TestDevices(t *testing.T) {
	const (
		clsact            = 0xfffffff1 // TC_H_CLSACT
		ingress, egress   = 0xfffffff2, 0xfffffff3
		passXDP, pass     = 2, 0
		gactShot, gactOK  = 2, 0
		gactStolen        = 4
		egressRedirect    = 1 // TCA_EGRESS_REDIR
		matchall, byBPF   = "matchall", "bpf"
		matchallActions   = 2
		bpfFD, bpfFlags   = 6, 8
		bpfDirectAction   = 1
		actKind, actNest  = 1, 2
		gactParameterKind = 2
	)
	hasTCX, hasNetkit := has(t, "tcx_prog_query"), has(t, "netkit_prog_query")
	ns := kerneltest.NewNetNS(t)
	want := map[string][]kernel.Taker{"lo": nil, "syn0": nil, "syn1": nil}
	keep := func(c io.Closer, err error) error {
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	}
	put := func(device string, hook kernel.Hook, kind ebpf.ProgramType, verdict int32,
		attach func(*ebpf.Program) error) error {
		name := fmt.Sprintf("at_%s_%d", device, len(want[device]))
		p, id, err := program(t, name, kind, verdict)
		if err == nil {
			err = attach(p)
		}
		if err != nil {
			return fmt.Errorf("%s on %s: %w", hook, device, err)
		}
		want[device] = append(want[device], kernel.Taker{Hook: hook, ID: id, Name: name})
		return nil
	}
	ns.Do(t, func() error {
		if err := kerneltest.AddLink("veth", "syn0", "syn1", 0); err != nil {
			return err
		}
		syn0, err := kerneltest.DeviceIndex("syn0")
		if err != nil {
			return err
		}
		syn1, err := kerneltest.DeviceIndex("syn1")
		if err != nil {
			return err
		}
		for _, at := range []struct {
			device string
			index  int
			hook   kernel.Hook
			mode   link.XDPAttachFlags
		}{{"syn0", syn0, kernel.HookXDPNative, link.XDPDriverMode}, {"syn1", syn1,
			kernel.HookXDPGeneric, link.XDPGenericMode}} {
			if err := put(at.device, at.hook, ebpf.XDP, passXDP,
				func(p *ebpf.Program) error {
					return keep(link.AttachXDP(link.XDPOptions{Program: p,
						Interface: at.index, Flags: at.mode}))
				}); err != nil {
				return err
			}
		}
		if err := kerneltest.Request(unix.RTM_NEWQDISC,
			kerneltest.TCMessage(syn0, 0xffff0000, clsact,
				0), func(a *netlink.AttributeEncoder) {
				a.String(1, "clsact")
			}); err != nil {
			return fmt.Errorf("clsact: %w", err)
		}
		for _, at := range []struct {
			parent uint32
			hook   kernel.Hook
		}{{ingress, kernel.HookTCIngress}, {egress, kernel.HookTCEgress}} {
			if err := put("syn0", at.hook, ebpf.SchedCLS, pass,
				func(p *ebpf.Program) error {
					return kerneltest.AddFilter(syn0, at.parent, byBPF, 1,
						func(o *netlink.AttributeEncoder) {
							o.Uint32(bpfFD, uint32(p.FD()))
							o.Uint32(bpfFlags, bpfDirectAction)
						})
				}); err != nil {
				return err
			}
		}
		redirect := make([]byte, 28) // struct tc_mirred
		binary.NativeEndian.PutUint32(redirect[8:], gactStolen)
		binary.NativeEndian.PutUint32(redirect[20:], egressRedirect)
		binary.NativeEndian.PutUint32(redirect[24:], uint32(syn1))
		verdict := func(n uint32) []byte {
			parameters := make([]byte, 20) // struct tc_gact
			binary.NativeEndian.PutUint32(parameters[8:], n)
			return parameters
		}
		for priority, does := range []struct {
			kind            string
			parameters      []byte
			taken, redirect bool
		}{{"gact", verdict(gactOK), false, false}, {"gact", verdict(gactShot), true,
			false}, {"mirred", redirect, true, true}} {
			err := kerneltest.AddFilter(syn0, egress, matchall, uint32(2+priority),
				func(o *netlink.AttributeEncoder) {
					kerneltest.Nested(o, matchallActions,
						func(actions *netlink.AttributeEncoder) {
							kerneltest.Nested(actions, 1,
								func(action *netlink.AttributeEncoder) {
									action.String(actKind, does.kind)
									kerneltest.Nested(action, actNest,
										func(options *netlink.AttributeEncoder) {
											options.Bytes(gactParameterKind,
												does.parameters)
										})
								})
						})
				})
			switch {
			case errors.Is(err, unix.ENOENT):
				t.Log("this kernel has no cls_matchall, or none of the action: filters that are no programs are not tried")
			case err != nil:
				return fmt.Errorf("matchall: %w", err)
			case does.taken:
				want["syn0"] = append(want["syn0"],
					kernel.Taker{Hook: kernel.HookTCEgress, Filter: matchall,
						Redirect: does.redirect})
			}
		}
		if hasTCX {
			for _, at := range []struct {
				hook   kernel.Hook
				attach ebpf.AttachType
			}{{kernel.HookTCXIngress, ebpf.AttachTCXIngress}, {kernel.HookTCXEgress,
				ebpf.AttachTCXEgress}, {kernel.HookTCXIngress, ebpf.AttachTCXIngress}} {
				if err := put("syn1", at.hook, ebpf.SchedCLS, -1,
					func(p *ebpf.Program) error {
						return keep(link.AttachTCX(link.TCXOptions{Interface: syn1,
							Program: p, Attach: at.attach}))
					}); err != nil {
					return err
				}
			}
		}
		if hasNetkit {
			if err := kerneltest.AddLink("netkit", "nk0", "nk1", 0); err != nil {
				return fmt.Errorf("netkit: %w", err)
			}
			nk0, err := kerneltest.DeviceIndex("nk0")
			if err != nil {
				return err
			}
			want["nk1"] = nil
			return put("nk0", kernel.HookNetkit, ebpf.SchedCLS, -1,
				func(p *ebpf.Program) error {
					return keep(link.AttachNetkit(link.NetkitOptions{Interface: nk0,
						Program: p, Attach: ebpf.AttachNetkitPrimary}))
				})
		}
		return nil
	})
	got := make(map[string][]kernel.Taker)
	ns.Do(t, func() error {
		list, err := Devices()
		for _, d := range list {
			if _, ok := want[d.Name]; ok { // not sit0 and the like, which some kernels make in every namespace
				got[d.Name] = d.Takers
			} else if len(d.Takers) > 0 {
				t.Errorf("%s has %+v", d.Name, d.Takers)
			}
		}
		return err
	})
	for _, sets := range []map[string][]kernel.Taker{want, got} {
		for _, takers := range sets {
			slices.SortFunc(takers,
				func(a, b kernel.Taker) int { return int(a.ID) - int(b.ID) })
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// has reports whether the kernel has the function, and says where it has not.
func has(t *testing.T, function string) bool {
	t.Helper()
	found, err := kernel.CodeRanges(function)
	if err != nil {
		t.Fatal(err)
	}
	if len(found[function]) == 0 {
		t.Logf("this kernel has no %s: that is not tried", function)
	}
	return len(found[function]) > 0
}

// TestOtherEnd finds the namespace where a device's other end is.
func TestOtherEnd(t *testing.T) {
	near, far, third := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	fd, err := unix.Open(far.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	near.Do(t, func() error {
		if err := kerneltest.AddLink("veth", "here", "there", fd); err != nil {
			return err
		}
		return kerneltest.AddLink("veth", "syn0", "syn1", 0)
	})
	var there int
	far.Do(t, func() (err error) { there, err = kerneltest.DeviceIndex("there"); return err })
	near.Do(t, func() error {
		list, err := Devices()
		if err != nil {
			return err
		}
		ids := make(map[string]int32)
		for name, path := range map[string]string{"far": far.Path, "third": third.Path} {
			if ids[name], err = kernel.NetNSID(path); err != nil {
				return err
			}
		}
		if ids["far"] < 0 || ids["third"] >= 0 {
			t.Errorf("ids of the namespaces are %v, want only one", ids)
		}
		seen := 0
		for _, d := range list {
			switch d.Name {
			case "here":
				seen++
				if d.Kind != "veth" || d.LinkNetNS == nil ||
					*d.LinkNetNS != ids["far"] || d.Link != uint32(there) {
					t.Errorf("got %+v, want its other end as device %d of namespace %d", d, there, ids["far"])
				}
			case "syn0", "syn1":
				seen++
				if d.LinkNetNS != nil {
					t.Errorf("%s: its other end is in namespace %d, want here",
						d.Name, *d.LinkNetNS)
				}
			}
		}
		if seen != 3 {
			t.Errorf("found %d of 3 devices in %+v", seen, list)
		}
		return nil
	})
	if _, err := kernel.NetNSID("/nowhere"); err == nil {
		t.Error("a path that leads nowhere has an id")
	}
}
