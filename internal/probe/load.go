// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// Limits of the kernel-side filter.
const (
	MaxPortRanges = 32
	MaxPrefixes   = 16
	MaxMapped     = 16 // places that rules send to
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ Low, High uint16 }

// Filter is what the kernel side keeps; empty fields keep everything.
type Filter struct {
	NetNS   uint64
	Ports   []PortRange
	Servers []netip.Prefix
	Clients []netip.Prefix
	Causes  []event.Cause
	Stages  []event.Stage
	ByOwner bool // only listeners allowed by Want
	// Mapped is where rules send what is for the ports and addresses asked about.
	Mapped []Mapped
}

// Mapped is where a rule sends packets to.
type Mapped struct {
	NetNS uint64     // 0 for any
	Addr  netip.Addr // not valid for any
	Port  uint16
}

// narrows tells whether it asks for some listeners only.
func (f *Filter) narrows() bool {
	return f.NetNS != 0 || len(f.Ports) > 0 || len(f.Servers) > 0 || f.ByOwner
}

// Keeps tells whether the cause and stage filters let the outcome through. What
// is no drop has no cause and passes.
func (f Filter) Keeps(o event.Outcome) bool {
	branch := o.Branch()
	if branch.Kind != event.KindDrop {
		return len(f.Stages) == 0 || slices.Contains(f.Stages, branch.Stage)
	}
	return (len(f.Causes) == 0 || slices.Contains(f.Causes, branch.Cause)) &&
		(len(f.Stages) == 0 || slices.Contains(f.Stages, branch.Stage))
}

// Config is what a run of the probe is asked for.
type Config struct {
	Filter   Filter
	Cookies  bool   // records for SYNs that a cookie answered
	Rate     uint32 // records per second, listener and outcome; 0: all
	RingSize uint32 // bytes, a power of two; 0: by the machine's memory
	Capture  bool   // records carry their packets' first bytes
	Accepts  bool   // watch who accepts what: see Accepting and LastAccepts
}

const (
	leastRing      = 1 << 20 // unless asked otherwise
	mostRing       = 4 << 20
	ringPart       = 2048 // of the machine's memory
	smallestRing   = 4096
	largestRing    = 1 << 30
	wakeupFraction = 8 // of the ring, waiting, wakes the reader at once
)

// ErrRingSize says that a ring buffer cannot have that size.
var ErrRingSize = errors.New("ring size must be a power of two from 4096 to 1073741824")

// CheckRingSize tells whether a ring buffer can have so many bytes.
func CheckRingSize(bytes uint32) error {
	if bytes < smallestRing || bytes > largestRing || bytes&(bytes-1) != 0 {
		return fmt.Errorf("%w: %d", ErrRingSize, bytes)
	}
	return nil
}

// load puts the plan's programs and their maps into the kernel.
func load(facts *Facts, plan Plan, config Config) (*ebpf.Collection, error) {
	programs := []string{snapshotProgram}
	for _, hook := range plan.Hooks {
		programs = append(programs, hook.all()...)
	}
	collection, _, err := loadSome(facts, plan, config, programs)
	if err != nil && plan.uses(Kprobe) && facts.RdonlyCast && !facts.noKprobeCast {
		facts.noKprobeCast = true // some kernels let kprobes not call it
		collection, _, err = loadSome(facts, plan, config, programs)
	}
	return collection, err
}

// snapshotProgram reads the ledger; it is run, not attached.
const snapshotProgram = "snapshot"

// loadSome loads some of a plan's programs. What it returns with an error is what it
// tried to load.
func loadSome(facts *Facts, plan Plan, config Config, programs []string) (*ebpf.Collection, *ebpf.CollectionSpec, error) {
	wanted, sections := make(map[string]bool), make(map[string]bool)
	for _, name := range programs {
		wanted[name], sections[sectionOf(name)] = true, true
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
	if facts.btfFile != "" && facts.types == nil {
		if facts.types, err = btf.LoadSpec(facts.btfFile); err != nil {
			return nil, nil, fmt.Errorf("load type information: %w", err)
		}
	}
	options.Cache, options.Programs.KernelTypes, options.Programs.LogLevel = facts.cache, facts.types, facts.verifierLog
	for name := range spec.Programs {
		if !wanted[name] {
			delete(spec.Programs, name)
		}
	}
	for _, program := range spec.Programs {
		noteFunctions(program.Instructions)
	}
	giveBack()
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

// haveLoop tells whether the kernel has bpf_loop: 5.17.
func haveLoop() bool { return features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop) == nil }

// uses tells whether any hook has the backend.
func (p Plan) uses(backend string) bool {
	return slices.ContainsFunc(p.Hooks, func(h Hook) bool { return h.Backend == backend })
}

// configure sets the constants that the verifier prunes by.
func configure(spec *ebpf.CollectionSpec, facts *Facts, plan Plan, config Config) error {
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
		{"mib_index", facts.MIB},
		{"rate", config.Rate},
		{"wakeup_bytes", ring / wakeupFraction},
		{"openings_room", room(spec.Maps["openings"].MaxEntries)},
		{"tallies_room", room(spec.Maps["tallies"].MaxEntries)},
		{"have_rdonly_cast", facts.RdonlyCast && !(plan.uses(Kprobe) && facts.noKprobeCast)},
		{"have_sock_from_file", facts.Functions[sockFromFile] > 0},
		{"have_socket_cookie", facts.SocketCookie && facts.Functions[sockFromFile] > 0}, // an untyped socket gets none
		{"capture", config.Capture},
		{"own_socket", uint32(facts.ownSocket)},
		{"have_loop", haveLoop()},
		{"have_consume_location", facts.tellPlaces()},
		{"have_task_pt_regs", facts.Functions[registersFunction] > 0},
		{"have_coarse", features.HaveProgramHelper(ebpf.Kprobe, asm.FnKtimeGetCoarseNs) == nil},
		{"have_rx_sk", facts.tellSockets()},
		{"have_reason", facts.tellReasons()},
		{"have_path", plan.Backend != Tracepoint},
		{"have_gone", plan.hooks(goneFunction) || plan.hooks(goneEvent)},
		{"answers_watched", asNumber(plan.hooks(answerEvent))},
		{"out_no_routes", facts.OutNoRoutes},
		{"migrated", facts.Migrated},
		{"check_req_args", uint32(facts.Functions["tcp_check_req"])},
		{"timewait_args", uint32(facts.Functions["tcp_timewait_state_process"])},
		{"accept_args", uint32(facts.Functions[acceptFunction])},
		{"listen_args", uint32(facts.Functions[listenFunction])},
		{"have_accepts", config.Accepts},
		{"reqsk_timer", start(facts.Code[requestTimer])},
		{"outcomes_of", outcomeTable()},
		{"fates", fateTable(facts.Reasons)},
		{"places", placeTable(facts)},
		{"hook_ranges", codeRanges[[4]bpf.SynspyCodeRange](facts, []string{hookSlow})},
		{"state_ranges", codeRanges[[4]bpf.SynspyCodeRange](facts, synFreers())},
		{"rcv_ranges", codeRanges[[16]bpf.SynspyCodeRange](facts, ackFreers())},
		{"cookie_ranges", codeRanges[[8]bpf.SynspyCodeRange](facts, []string{"cookie_v4_check", "cookie_v6_check"})},
		{"kfree_ranges", codeRanges[[4]bpf.SynspyCodeRange](facts, []string{"kfree_skb"})},
		{"icmp_ranges", codeRanges[[4]bpf.SynspyCodeRange](facts, icmpFreers())},
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

// codeRanges fills a fixed table; functions split into more pieces than it
// holds lose the last ones, which are the cold ones.
func codeRanges[T [4]bpf.SynspyCodeRange | [8]bpf.SynspyCodeRange | [16]bpf.SynspyCodeRange](facts *Facts, names []string) T {
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
		out.Server[i].Addr, out.Server[i].Mask = prefixBytes(prefix)
	}
	out.Clients = uint32(len(f.Clients))
	for i, prefix := range f.Clients {
		out.Client[i].Addr, out.Client[i].Mask = prefixBytes(prefix)
	}
	if f.ByOwner {
		out.ByOwner = 1
	}
	if len(f.Mapped) > MaxMapped {
		return out, fmt.Errorf("set filter: more than %d places that rules send to", MaxMapped)
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

// prefixBytes gives address and mask as 16 bytes, IPv4 as v4-mapped.
func prefixBytes(prefix netip.Prefix) (addr, mask [16]uint8) {
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
