// SPDX-License-Identifier: Apache-2.0

// Package load puts the programs and maps of a plan into the kernel: it sets their constants and
// sizes, attaches them, and says which hook the kernel refused. What it returns are [Objects].
package load

import (
	"bytes"
	"fmt"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"net/netip"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/memory"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/probe/reason"
)

// Limits of the kernel-side filter.
const (
	MaxPrefixes = 16
	MaxMapped   = 16 // places that rules send to
)

const (
	mostRing       = 4 << 20
	ringPart       = 2048 // of the machine's memory
	SmallestRing   = 4096
	largestRing    = 1 << 30
	WakeupFraction = 8 // of the ring, waiting, wakes the reader at once
)

// Programs puts the plan's programs and their maps into the kernel.
func Programs(here *facts.Facts, plan plan.Plan, config Config) (*ebpf.Collection, error) {
	programs := []string{snapshotProgram}
	for _, hook := range plan.Hooks {
		programs = append(programs, hook.All()...)
	}
	collection, _, err := SomePrograms(here, plan, config, programs)
	if err != nil && plan.Uses(facts.Kprobe) && here.RdonlyCast && !here.NoKprobeCast {
		here.NoKprobeCast = true // some kernels let kprobes not call it
		collection, _, err = SomePrograms(here, plan, config, programs)
	}
	return collection, err
}

// snapshotProgram reads the ledger; it is run, not attached.
const snapshotProgram = "snapshot"

// SomePrograms loads some of a plan's programs. What it returns with an error is what it
// tried to load.
func SomePrograms(facts *facts.Facts, plan plan.Plan, config Config,
	programs []string) (*ebpf.Collection, *ebpf.CollectionSpec, error) {
	wanted, sections := make(map[string]bool), make(map[string]bool)
	for _, name := range programs {
		wanted[name], sections[SectionOf(name)] = true, true
	}
	object, err := prune(bpf.Object(), func(section string) bool { return sections[section] })
	if err != nil {
		return nil, nil, err
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, nil, fmt.Errorf("read BPF objects: %w", err)
	}
	if err := size(spec, facts, config); err != nil {
		return nil, nil, err
	}
	if err := configure(spec, facts, plan, config); err != nil {
		return nil, nil, err
	}
	options := ebpf.CollectionOptions{}
	if facts.BtfFile != "" && facts.Types == nil {
		if facts.Types, err = btf.LoadSpec(facts.BtfFile); err != nil {
			return nil, nil, fmt.Errorf("load type information: %w", err)
		}
	}
	options.Cache, options.Programs.KernelTypes, options.Programs.LogLevel = facts.Cache, facts.Types, facts.VerifierLog
	for name := range spec.Programs {
		if !wanted[name] {
			delete(spec.Programs, name)
		}
	}
	for _, program := range spec.Programs {
		noteFunctions(program.Instructions)
	}
	memory.GiveBack()
	if !haveLoop() {
		for _, program := range spec.Programs {
			program.Instructions = withoutLoops(program.Instructions)
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, options)
	if err != nil {
		return nil, spec, fmt.Errorf("load BPF programs: %w", err)
	}
	return collection, spec, nil
}

// noteFunctions gives every function one source line: relocations leave notes as
// such, and the kernel wants either none or one for each function.
func noteFunctions(program asm.Instructions) {
	for i := range program {
		if ins := &program[i]; i == 0 || btf.FuncMetadata(ins) != nil {
			*ins = ins.WithSource(asm.Comment("function"))
		}
	}
}

// haveLoop reports whether the kernel has bpf_loop: 5.17.
func haveLoop() bool { return features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop) == nil }

// configure sets the constants that the verifier prunes by.
func configure(spec *ebpf.CollectionSpec, here *facts.Facts, plan plan.Plan, config Config) error {
	filter, err := kernelFilter(config.Filter)
	if err != nil {
		return err
	}
	var emit uint64
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		kind := o.Branch().Kind
		if kind == event.KindDrop || (kind == event.KindCookie && config.Cookies) {
			emit |= 1 << o
		}
	}
	ring := spec.Maps["ring"].MaxEntries
	values := []struct {
		name  string
		value any
	}{
		{"filter", filter},
		{"emit_outcomes", emit},
		{"mib_index", here.MIB},
		{"rate", config.Rate},
		{"wakeup_bytes", ring / WakeupFraction},
		{"openings_room", Room(spec.Maps["openings"].MaxEntries)},
		{"tallies_room", Room(spec.Maps["tallies"].MaxEntries)},
		{"have_rdonly_cast", here.RdonlyCast &&
			!(plan.Uses(facts.Kprobe) && here.NoKprobeCast)},
		{"have_sock_from_file", here.Functions[facts.SockFromFile] > 0},
		{"have_socket_cookie", here.SocketCookie &&
			here.Functions[facts.SockFromFile] > 0}, // an untyped socket gets none
		{"capture", config.Capture},
		{"own_socket", uint32(here.OwnSocket)},
		{"have_loop", haveLoop()},
		{"have_consume_location", here.TellPlaces()},
		{"have_task_pt_regs", here.Functions[facts.RegistersFunction] > 0},
		{"have_coarse",
			features.HaveProgramHelper(ebpf.Kprobe, asm.FnKtimeGetCoarseNs) == nil},
		{"have_rx_sk", here.TellSockets()},
		{"have_reason", here.TellReasons()},
		{"have_listen_path", plan.Backend != facts.Tracepoint},
		{"have_dropped_requests",
			plan.Attaches(facts.GoneFunction) || plan.Attaches(facts.GoneEvent)},
		{"answers_watched", asNumber(plan.Attaches(facts.AnswerEvent))},
		{"out_no_routes", here.OutNoRoutes},
		{"migrated_index", here.Migrated},
		{"check_req_args", uint32(here.Functions["tcp_check_req"])},
		{"timewait_args", uint32(here.Functions["tcp_timewait_state_process"])},
		{"accept_args", uint32(here.Functions[facts.AcceptFunction])},
		{"listen_args", uint32(here.Functions[facts.ListenFunction])},
		{"have_accepts", config.Accepts},
		{"reqsk_timer", start(here.Code[facts.RequestTimer])},
		{"outcomes_of", outcomeTable()},
		{"reason_outcomes", reasonTable(here.Reasons)},
		{"places", placeTable(here)},
		{"hook_ranges",
			CodeRanges[[4]bpf.SynspyCodeRange](here, []string{reason.HookSlow})},
		{"state_ranges", CodeRanges[[4]bpf.SynspyCodeRange](here, facts.SYNFreers())},
		{"rcv_ranges", CodeRanges[[16]bpf.SynspyCodeRange](here, reason.ACKFreers())},
		{"cookie_ranges",
			CodeRanges[[8]bpf.SynspyCodeRange](here,
				[]string{"cookie_v4_check", "cookie_v6_check"})},
		{"kfree_ranges", CodeRanges[[4]bpf.SynspyCodeRange](here, []string{"kfree_skb"})},
		{"icmp_ranges", CodeRanges[[4]bpf.SynspyCodeRange](here, facts.ICMPFreers())},
	}
	for _, v := range values {
		variable, ok := spec.Variables[v.name]
		if !ok {
			return fmt.Errorf("set BPF constant %s: no such variable", v.name)
		}
		if err := variable.Set(v.value); err != nil {
			return fmt.Errorf("set BPF constant %s: %w", v.name, err)
		}
	}
	return nil
}

// asNumber is a yes as the kernel side keeps it where it may come later.
func asNumber(yes bool) uint32 {
	if yes {
		return 1
	}
	return 0
}

// start is where a function's code begins; 0 where that is not known.
func start(code []kernel.Range) uint64 {
	if len(code) == 0 {
		return 0
	}
	first := code[0].Start
	for _, piece := range code { // a cold piece may come first
		if piece.End-piece.Start > code[0].End-code[0].Start {
			first = piece.Start
		}
	}
	return first
}

// CodeRanges fills a fixed table; functions split into more pieces than it
// holds lose the last ones, which are the cold ones.
func CodeRanges[T [4]bpf.SynspyCodeRange | [8]bpf.SynspyCodeRange | [16]bpf.SynspyCodeRange](facts *facts.Facts, names []string) T {
	var ranges []kernel.Range
	for _, name := range names {
		ranges = append(ranges, facts.Code[name]...)
	}
	var table T
	for i := range min(len(table), len(ranges)) {
		code := ranges[i]
		table[i] = bpf.SynspyCodeRange{Start: code.Start, Size: code.End - code.Start}
	}
	return table
}

func kernelFilter(f Filter) (bpf.SynspyFilter, error) {
	var out bpf.SynspyFilter
	if len(f.Ports) > MaxPortRanges {
		return out, fmt.Errorf("set filter: more than %d port ranges", MaxPortRanges)
	}
	if len(f.Servers) > MaxPrefixes || len(f.Clients) > MaxPrefixes {
		return out, fmt.Errorf("set filter: more than %d prefixes", MaxPrefixes)
	}
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		if f.Keeps(o) {
			out.Outcomes |= 1 << o
		}
	}
	out.Netns = uint32(f.NetNS)
	out.Ports = uint32(len(f.Ports))
	for i, ports := range f.Ports {
		out.Port[i].Low, out.Port[i].High = ports.Low, ports.High
	}
	out.Servers = uint32(len(f.Servers))
	for i, prefix := range f.Servers {
		out.Server[i].Addr, out.Server[i].Mask = PrefixBytes(prefix)
	}
	out.Clients = uint32(len(f.Clients))
	for i, prefix := range f.Clients {
		out.Client[i].Addr, out.Client[i].Mask = PrefixBytes(prefix)
	}
	if f.ByOwner {
		out.ByOwner = 1
	}
	if len(f.Mapped) > MaxMapped {
		return out, fmt.Errorf("set filter: more than %d places that rules send to",
			MaxMapped)
	}
	out.Maps = uint32(len(f.Mapped))
	for i, m := range f.Mapped {
		out.Mapped[i].Netns, out.Mapped[i].Port = uint32(m.NetNS), m.Port
		if m.Addr.IsValid() {
			out.Mapped[i].Addr = m.Addr.As16()
		}
	}
	return out, nil
}

// PrefixBytes gives address and mask as 16 bytes, IPv4 as v4-mapped.
func PrefixBytes(prefix netip.Prefix) (addr, mask [16]uint8) {
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	for i := range mask {
		switch left := bits - i*8; {
		case left >= 8:
			mask[i] = 0xff
		case left > 0:
			mask[i] = 0xff << (8 - left)
		}
	}
	addr = prefix.Masked().Addr().As16()
	return addr, mask
}
