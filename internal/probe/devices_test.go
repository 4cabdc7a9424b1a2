package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
)

// netns is a private network namespace for as long as the test runs.
type netns struct {
	path  string
	inode uint64
}

func newNetNS(t *testing.T) netns {
	t.Helper()
	made, done := make(chan error, 1), make(chan struct{})
	var ns netns
	t.Cleanup(func() { close(done) })
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends, and the namespace with it
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns.path = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			ns.inode, err = kernel.Inode(ns.path)
		}
		made <- err
		<-done
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	return ns
}

// do runs f in the namespace.
func (ns netns) do(t *testing.T, f func() error) {
	t.Helper()
	if err := kernel.InNetNS(ns.path, ns.inode, f); err != nil {
		t.Fatal(err)
	}
}

// request sends one message that is to be acknowledged, in the calling thread's namespace.
func request(kind netlink.HeaderType, head []byte, fill func(*netlink.AttributeEncoder)) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	attributes := netlink.NewAttributeEncoder()
	fill(attributes)
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
		Data:   append(head, encoded...),
	})
	return err
}

// nested is an attribute that holds others.
func nested(to *netlink.AttributeEncoder, kind uint16, fill func(*netlink.AttributeEncoder)) {
	to.Nested(kind, func(in *netlink.AttributeEncoder) error {
		fill(in)
		return nil
	})
}

// addLink makes a device of that kind. Its other end, named peer, is where the file descriptor leads; 0 is here.
func addLink(kind, name, peer string, where int) error {
	return request(unix.RTM_NEWLINK, make([]byte, unix.SizeofIfInfomsg), func(a *netlink.AttributeEncoder) {
		a.String(unix.IFLA_IFNAME, name)
		nested(a, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
			info.String(unix.IFLA_INFO_KIND, kind)
			nested(info, unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) {
				end := netlink.NewAttributeEncoder()
				end.String(unix.IFLA_IFNAME, peer)
				if where != 0 {
					end.Uint32(unix.IFLA_NET_NS_FD, uint32(where))
				}
				encoded, err := end.Encode()
				if err != nil {
					panic(err)
				}
				data.Bytes(1, append(make([]byte, unix.SizeofIfInfomsg), encoded...)) // VETH_INFO_PEER, IFLA_NETKIT_PEER_INFO
			})
		})
	})
}

// tcMessage is a struct tcmsg.
func tcMessage(index int, handle, parent, info uint32) []byte {
	b := make([]byte, 20)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], handle)
	binary.NativeEndian.PutUint32(b[12:], parent)
	binary.NativeEndian.PutUint32(b[16:], info)
	return b
}

// addFilter puts a tc filter on a device's clsact qdisc.
func addFilter(index int, parent uint32, kind string, priority uint32, options func(*netlink.AttributeEncoder)) error {
	protocol := uint32(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8)
	return request(unix.RTM_NEWTFILTER, tcMessage(index, 0, parent, priority<<16|protocol), func(a *netlink.AttributeEncoder) {
		a.String(1, kind) // TCA_KIND
		nested(a, 2, options)
	})
}

// program loads one that only returns the verdict, until the test ends, and returns its ID as well.
func program(t *testing.T, name string, kind ebpf.ProgramType, verdict int32) (p *ebpf.Program, id uint32, err error) {
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
		matchall, byBPF   = "matchall", "bpf"
		matchallActions   = 2
		bpfFD, bpfFlags   = 6, 8
		bpfDirectAction   = 1
		actKind, actNest  = 1, 2
		gactParameterKind = 2
	)
	hasTCX, hasNetkit := has(t, "tcx_prog_query"), has(t, "netkit_prog_query")
	ns := newNetNS(t)
	want := map[string][]kernel.Taker{"lo": nil, "syn0": nil, "syn1": nil}
	keep := func(c io.Closer, err error) error {
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	}
	put := func(device string, hook kernel.Hook, kind ebpf.ProgramType, verdict int32, attach func(*ebpf.Program) error) error {
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
	ns.do(t, func() error {
		if err := addLink("veth", "syn0", "syn1", 0); err != nil {
			return err
		}
		syn0, err := deviceIndex("syn0")
		if err != nil {
			return err
		}
		syn1, err := deviceIndex("syn1")
		if err != nil {
			return err
		}
		for _, at := range []struct {
			device string
			index  int
			hook   kernel.Hook
			mode   link.XDPAttachFlags
		}{{"syn0", syn0, kernel.HookXDPNative, link.XDPDriverMode}, {"syn1", syn1, kernel.HookXDPGeneric, link.XDPGenericMode}} {
			if err := put(at.device, at.hook, ebpf.XDP, passXDP, func(p *ebpf.Program) error {
				return keep(link.AttachXDP(link.XDPOptions{Program: p, Interface: at.index, Flags: at.mode}))
			}); err != nil {
				return err
			}
		}
		if err := request(unix.RTM_NEWQDISC, tcMessage(syn0, 0xffff0000, clsact, 0), func(a *netlink.AttributeEncoder) {
			a.String(1, "clsact")
		}); err != nil {
			return fmt.Errorf("clsact: %w", err)
		}
		for _, at := range []struct {
			parent uint32
			hook   kernel.Hook
		}{{ingress, kernel.HookTCIngress}, {egress, kernel.HookTCEgress}} {
			if err := put("syn0", at.hook, ebpf.SchedCLS, pass, func(p *ebpf.Program) error {
				return addFilter(syn0, at.parent, byBPF, 1, func(o *netlink.AttributeEncoder) {
					o.Uint32(bpfFD, uint32(p.FD()))
					o.Uint32(bpfFlags, bpfDirectAction)
				})
			}); err != nil {
				return err
			}
		}
		for priority, verdict := range []uint32{gactOK, gactShot} {
			err := addFilter(syn0, egress, matchall, uint32(2+priority), func(o *netlink.AttributeEncoder) {
				nested(o, matchallActions, func(actions *netlink.AttributeEncoder) {
					nested(actions, 1, func(action *netlink.AttributeEncoder) {
						action.String(actKind, "gact")
						nested(action, actNest, func(options *netlink.AttributeEncoder) {
							parameters := make([]byte, 20) // struct tc_gact
							binary.NativeEndian.PutUint32(parameters[8:], verdict)
							options.Bytes(gactParameterKind, parameters)
						})
					})
				})
			})
			switch {
			case errors.Is(err, unix.ENOENT):
				t.Log("this kernel has no cls_matchall or no act_gact: filters that are no programs are not tried")
			case err != nil:
				return fmt.Errorf("matchall: %w", err)
			case verdict == gactShot:
				want["syn0"] = append(want["syn0"], kernel.Taker{Hook: kernel.HookTCEgress, Filter: matchall})
			}
		}
		if hasTCX {
			for _, at := range []struct {
				hook   kernel.Hook
				attach ebpf.AttachType
			}{{kernel.HookTCXIngress, ebpf.AttachTCXIngress}, {kernel.HookTCXEgress, ebpf.AttachTCXEgress}, {kernel.HookTCXIngress, ebpf.AttachTCXIngress}} {
				if err := put("syn1", at.hook, ebpf.SchedCLS, -1, func(p *ebpf.Program) error {
					return keep(link.AttachTCX(link.TCXOptions{Interface: syn1, Program: p, Attach: at.attach}))
				}); err != nil {
					return err
				}
			}
		}
		if hasNetkit {
			if err := addLink("netkit", "nk0", "nk1", 0); err != nil {
				return fmt.Errorf("netkit: %w", err)
			}
			nk0, err := deviceIndex("nk0")
			if err != nil {
				return err
			}
			want["nk1"] = nil
			return put("nk0", kernel.HookNetkit, ebpf.SchedCLS, -1, func(p *ebpf.Program) error {
				return keep(link.AttachNetkit(link.NetkitOptions{Interface: nk0, Program: p, Attach: ebpf.AttachNetkitPrimary}))
			})
		}
		return nil
	})
	got := make(map[string][]kernel.Taker)
	ns.do(t, func() error {
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
			slices.SortFunc(takers, func(a, b kernel.Taker) int { return int(a.ID) - int(b.ID) })
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// has tells whether the kernel has the function, and says where it has not.
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

func deviceIndex(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	return int(request.Uint32()), err
}

// TestOtherEnd finds the namespace where a device's other end is.
func TestOtherEnd(t *testing.T) {
	near, far, third := newNetNS(t), newNetNS(t), newNetNS(t)
	fd, err := unix.Open(far.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	near.do(t, func() error {
		if err := addLink("veth", "here", "there", fd); err != nil {
			return err
		}
		return addLink("veth", "syn0", "syn1", 0)
	})
	var there int
	far.do(t, func() (err error) { there, err = deviceIndex("there"); return err })
	near.do(t, func() error {
		list, err := Devices()
		if err != nil {
			return err
		}
		ids := make(map[string]int32)
		for name, path := range map[string]string{"far": far.path, "third": third.path} {
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
				if d.Kind != "veth" || d.LinkNetNS == nil || *d.LinkNetNS != ids["far"] || d.Link != uint32(there) {
					t.Errorf("got %+v, want its other end as device %d of namespace %d", d, there, ids["far"])
				}
			case "syn0", "syn1":
				seen++
				if d.LinkNetNS != nil {
					t.Errorf("%s: its other end is in namespace %d, want here", d.Name, *d.LinkNetNS)
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
