// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/probe/reason"
)

// Strays watches what is neither drop nor arrival: SYN-ACKs that this host frees on their way out, SYNs in frames for
// another host, clients' segments that netfilter, tc or XDP drops, and SYNs for the only network namespace asked about that another one
// frees. It is made by LoadStrays, begun by Watch, read by Read, and freed by Close.
type Strays struct {
	names      *message.Names
	collection *ebpf.Collection
	link       link.Link // nil: not begun
}

// Stray is what was freed alike.
type Stray struct {
	Answer  bool           // a SYN-ACK; if it is none of these, a SYN in a frame for another host
	Segment bool           // of a client's, without SYN: a handshake's ACK or a later one
	Syn     bool           // to an address of the only namespace asked about
	Server  event.Endpoint // the listener's end
	NetNS   uint64         // where it was freed
	CameIn  bool           // by a device: it was sent by another namespace, or host
	Device  uint32         // index of the one it was on; 0: it had none yet
	MAC     string         // that a frame was for
	Kernel  event.Kernel   // Hook is output or postrouting as well
	Count   uint64
}

// MaxStrayAddresses is how many addresses of the only namespace asked about can be watched, as in bpf/strays.bpf.c.
const MaxStrayAddresses = 16

// LoadStrays loads what counts them, and attaches nothing. addresses are those of the only network namespace asked about, netns;
// without one it is 0.
func LoadStrays(facts *facts.Facts, names *message.Names, netns uint64,
	addresses []netip.Addr) (*Strays, error) {
	spec, err := bpf.LoadStrays()
	if err != nil {
		return nil, fmt.Errorf("read BPF objects: %w", err)
	}
	ranges := load.CodeRanges[[4]bpf.SynspyCodeRange](facts, []string{reason.HookSlow})
	if err := errors.Join(spec.Variables[bpf.StraysVarHaveReason].Set(facts.TellReasons()),
		spec.Variables[bpf.StraysVarIngressReasons].Set(ingressReasons(facts)),
		spec.Variables[bpf.StraysVarHookRanges].Set(ranges),
		askedAbout(spec, netns, addresses)); err != nil {
		return nil, fmt.Errorf("set up the watch over strays: %w", err)
	}
	options := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{}}
	options.Cache = btf.NewCache()
	if facts.BtfFile != "" {
		if options.Programs.KernelTypes, err = btf.LoadSpec(facts.BtfFile); err != nil {
			return nil, fmt.Errorf("load type information: %w", err)
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, options)
	if err != nil {
		return nil, fmt.Errorf("load the watch over strays: %w", err)
	}
	return &Strays{names: names, collection: collection}, nil
}

// askedAbout sets whose SYNs are counted that die in other namespaces.
func askedAbout(spec *ebpf.CollectionSpec, netns uint64, list []netip.Addr) error {
	var raw [MaxStrayAddresses]bpf.StraysAddress
	for i, addr := range list[:min(len(list), len(raw))] {
		bytes := addr.As16()
		raw[i].Half = [2]uint64{binary.NativeEndian.Uint64(bytes[:8]),
			binary.NativeEndian.Uint64(bytes[8:])}
	}
	return errors.Join(spec.Variables[bpf.StraysVarOnlyNetns].Set(uint32(netns)),
		spec.Variables[bpf.StraysVarAddresses].Set(uint32(min(len(list),
			len(raw)))), spec.Variables[bpf.StraysVarAddress].Set(raw))
}

// ingressReasons are those of what drops segments before their socket; 0 where this kernel has one not.
func ingressReasons(facts *facts.Facts) (reasons [3]uint32) {
	for i, name := range []string{"NETFILTER_DROP", "TC_INGRESS", "XDP"} {
		reasons[i] = facts.Reasons[reason.Prefix+name]
	}
	return reasons
}

// Watch begins to count. From then on every packet that the kernel frees pays some 50 ns.
func (s *Strays) Watch() (err error) {
	s.link, err = link.AttachTracing(link.TracingOptions{Program: s.collection.Programs[bpf.StraysProgTpBtfStray]})
	if err != nil {
		return fmt.Errorf("attach to kfree_skb: %w", err)
	}
	return nil
}

// Read tells what was counted until now, and how many packets more there was no room to tell apart.
func (s *Strays) Read() (list []Stray, others uint64, err error) {
	var key bpf.StraysStray
	var count uint64
	entries := s.collection.Maps[bpf.StraysMapStrays].Iterate()
	for entries.Next(&key, &count) {
		list = append(list, s.stray(&key, count))
	}
	if err := entries.Err(); err != nil {
		return nil, 0, fmt.Errorf("read strays: %w", err)
	}
	if err := s.collection.Variables[bpf.StraysVarOverflowed].Get(&others); err != nil {
		return nil, 0, fmt.Errorf("read strays: %w", err)
	}
	return list, others, nil
}

func (s *Strays) stray(key *bpf.StraysStray, count uint64) Stray {
	n := s.names
	kind := bpf.StraysStrayKind(key.Kind)
	out := Stray{Answer: kind == bpf.StraysStrayKindSTRAY_ANSWER,
		Segment: kind == bpf.StraysStrayKindSTRAY_SEGMENT, Syn: kind == bpf.StraysStrayKindSTRAY_SYN,
		Server: event.Endpoint{Addr: netip.AddrFrom16(key.Server).Unmap(),
			Port: key.Port}, NetNS: uint64(key.Netns), CameIn: key.CameIn != 0,
		Device: key.Device, Count: count, Kernel: event.Kernel{Function: n.FunctionAt(key.Place), Reason: n.Reasons[key.Reason]}}
	if kind == bpf.StraysStrayKindSTRAY_FRAME {
		out.MAC = net.HardwareAddr(key.Mac[:]).String()
		return out
	}
	at := n.CalledAt(key.Callers)
	out.Kernel.Hook, out.Kernel.Family = at.Hook, at.Family
	return out
}

// Close ends the watch.
func (s *Strays) Close() (err error) {
	if s.link != nil {
		err = s.link.Close()
	}
	s.collection.Close()
	return err
}
