// SPDX-License-Identifier: Apache-2.0

// Package facts finds what a plan is made from: what this kernel has of functions, tracepoints,
// counters and helpers, and which backends it was seen to refuse. Sources are BTF, kallsyms and trying.
package facts

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/memory"
)

// Support is a three-valued answer of a feature test: yes (Err nil), no, or
// could not tell, with the reason.
type Support struct {
	Known bool
	Err   error
}

// Yes tells that the feature was seen to work.
func (s Support) Yes() bool { return s.Known && s.Err == nil }

// Maybe tells that the feature was not seen to fail.
func (s Support) Maybe() bool { return s.Err == nil }

// Facts is what the plan is made from: plain data, so that the plans of other
// kernels can be tested here.
type Facts struct {
	Release string
	Arch    string

	BTF        error // nil where there is type information
	Trampoline Support
	Kprobe     Support
	Tracepoint Support

	Functions    map[string]int            // arguments of the functions that hooks name, by BTF
	Tracepoints  map[string]int            // arguments of BTF tracepoints, without the context
	MIB          [event.NumCounters]uint32 // indices in struct linux_mib
	MIBErr       error
	Reasons      map[string]uint32 // enum skb_drop_reason; empty before 5.17
	OutNoRoutes  uint32            // index of IpOutNoRoutes in struct ipstats_mib
	Migrated     uint32            // index of TCPMigrateReqSuccess; 0 before 5.14
	LSM          bool              // some security module may refuse connection requests
	LaterLSM     bool              // none does, but a BPF program may come to
	Rejects      bool              // some rule of netfilter may reject, now
	RdonlyCast   bool              // kfunc bpf_rdonly_cast: 6.2
	NoKprobeCast bool              // kprobes were refused it
	LateRows     bool              // tracing programs may make a map's rows on first use: 6.1
	SocketCookie bool              // helper bpf_get_socket_cookie in tracing programs: 5.12

	FewRows      *Sizes            // tests': instead of what sizesFor chooses
	VerifierLog  ebpf.LogLevel     // tests': what the verifier is to say of programs that it takes
	RefusedHooks map[Attempt]error // hooks that one can do without, seen to be refused

	Code    map[string][]kernel.Range // of functions that free packets
	CodeErr error
	CPUs    []int

	OwnSocket int    // a socket's descriptor, see socket_of in bpf/compat.h; never closed
	BtfFile   string // empty: the kernel's own
	Cache     *btf.Cache
	Types     *btf.Spec // of btfFile, once needed
}

// ErrNoType says that something is missing that a hook needs to know of.
var ErrNoType = errors.New("not in the kernel's type information")

// ErrNoBTF says that neither the kernel nor --btf provides type information.
var ErrNoBTF = errors.New("this kernel provides no BTF type information")

// CheckBTF reports whether the file holds type information.
func CheckBTF(file string) error {
	_, err := kernel.ReadTypes(file)
	return err
}

// Gather finds the facts of the running kernel that a plan is made from.
// btfFile, if not empty, replaces the kernel's own type information. Whether
// this kernel takes a hook is not asked here: it is seen when the plan is tried,
// or by Try.
func Gather(btfFile string) (*Facts, error) {
	facts := &Facts{Release: kernel.Release(), Arch: runtime.GOARCH, BtfFile: btfFile,
		Cache: btf.NewCache()}
	// Kernels before 5.11 charge BPF memory to this limit.
	_ = rlimit.RemoveMemlock()
	var err error
	if _, err := os.Stat(kprobeEvents); errors.Is(err, os.ErrNotExist) {
		facts.Kprobe = Support{true, errors.New("this kernel has no kprobes")}
	}
	if facts.CPUs, err = kernel.OnlineCPUs(); err != nil {
		return nil, err
	}
	types, err := kernel.ReadTypes(btfFile)
	if err != nil {
		facts.BTF = fmt.Errorf("%w: %w", ErrNoBTF, err)
		return facts, nil
	}
	facts.Read(types)
	if facts.OwnSocket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC,
		0); err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	modules := kernel.SecurityModules()
	facts.LSM = refusesRequests(modules)
	facts.LaterLSM = !facts.LSM && slices.Contains(modules, "bpf")
	memory.GiveBack()
	return facts, nil
}

// refusesRequests reports whether one of the modules may refuse a connection request.
// BPF programs may, if any is loaded; that is not asked for each time one is.
func refusesRequests(modules []string) bool {
	for _, name := range modules {
		switch name {
		case "selinux", "smack":
			return true
		case "bpf":
			if anyLSMProgram() {
				return true
			}
		}
	}
	return false
}

func anyLSMProgram() bool {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return false
		}
		id = next
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone
		}
		kind := program.Type()
		program.Close()
		if kind == ebpf.LSM {
			return true
		}
	}
}

// kprobeEvents is there where the kernel was built with kprobes.
const kprobeEvents = "/sys/bus/event_source/devices/kprobe"

// Read takes from type information what the plan asks.
func (f *Facts) Read(types *kernel.Types) {
	f.Functions = types.Functions(append(hookedFunctions(), castFunction, cookieFunction,
		RegistersFunction, allocFunction)...)
	f.Tracepoints = types.Tracepoints(hookedTracepoints()...)
	_, f.RdonlyCast = f.Functions[castFunction]
	_, f.SocketCookie = f.Functions[cookieFunction]
	_, f.LateRows = f.Functions[allocFunction]
	f.Reasons = types.Enum("skb_drop_reason")
	f.OutNoRoutes = types.AnonymousEnum("IPSTATS_MIB_NUM")["IPSTATS_MIB_OUTNOROUTES"]
	indices := types.AnonymousEnum("LINUX_MIB_NUM")
	f.Migrated = indices["LINUX_MIB_TCPMIGRATEREQSUCCESS"]
	for c := range event.NumCounters {
		index, ok := indices[c.MIB()]
		if !ok {
			f.MIBErr = fmt.Errorf("find the kernel's counters: %s is %w", c.MIB(),
				ErrNoType)
			return
		}
		f.MIB[c] = index
	}
	for _, run := range neighbours() {
		for i, c := range run {
			if f.MIB[c] != f.MIB[run[0]]+uint32(i) {
				f.RdonlyCast = false // which reads them as neighbours
			}
		}
	}
}

// neighbours lists the counters that bpf/counters.h reads as neighbours. They are
// that since 3.9; were they not, each would be found by itself, more slowly.
func neighbours() [][]event.Counter {
	return [][]event.Counter{
		{event.CounterListenOverflows, event.CounterListenDrops},
		{event.CounterTCPReqQFullDoCookies, event.CounterTCPReqQFullDrop},
		{event.CounterSyncookiesSent, event.CounterSyncookiesRecv,
			event.CounterSyncookiesFailed,
			event.CounterEmbryonicRsts},
	}
}

// castFunction is the kfunc that turns an address into a typed pointer.
const castFunction = "bpf_rdonly_cast"

// allocFunction makes the BPF memory allocator, which works in any context.
const allocFunction = "bpf_mem_alloc_init"

// cookieFunction is bpf_get_socket_cookie as tracing programs call it.
const cookieFunction = "bpf_get_socket_ptr_cookie"

// ReadCode finds the code of the functions that free packets, once.
func (f *Facts) ReadCode() {
	if f.Code == nil && f.CodeErr == nil {
		f.Code, f.CodeErr = kernel.CodeRanges(PlacedFunctions()...)
		f.Rejects = f.rulesReject()
	}
}

// rulesReject reports whether a rule may reject: modules count theirs; where they are part of the
// kernel, the rules are read.
func (f *Facts) rulesReject() bool {
	if f.RejectsBuiltIn() {
		return kernel.RulesReject()
	}
	use, err := kernel.ModulesReject()
	return err != nil || use.Used
}

func (f *Facts) RejectsBuiltIn() bool { return len(f.Code[RejectFunction]) > 0 }

// Try tests each backend, and the kernel symbols, for a report.
func (f *Facts) Try() {
	f.Trampoline, f.Tracepoint = tryTrampoline(), tryTracepoint()
	if f.Kprobe.Maybe() {
		f.Kprobe = tryKprobe()
	}
	f.ReadCode()
	if f.IsSplit() {
		f.Tracepoint = Support{true, ErrSplit}
	}
}

// ErrSplit says that the compiler took kfree_skb apart, so that it may not tell who called it,
// and nothing else tells why a packet is freed.
var ErrSplit = errors.New("this kernel's kfree_skb is in pieces and tells no reason: tracepoints would take one packet for another")

func (f *Facts) IsSplit() bool { return len(f.Code["kfree_skb"]) > 1 && !f.TellReasons() }

// harmless is a program that does nothing, to see what can be attached.
func harmless(kind ebpf.ProgramType, attach ebpf.AttachType, to string) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "synspy_try", Type: kind, AttachType: attach, AttachTo: to, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}

// tested is the function that feature tests hook: it has no traffic of its own.
const tested = "tcp_req_err"

func tryTrampoline() Support {
	program, err := harmless(ebpf.Tracing, ebpf.AttachTraceFEntry, tested)
	if err != nil {
		return Support{true, fmt.Errorf("load a trampoline: %w", err)}
	}
	defer program.Close()
	attached, err := link.AttachTracing(link.TracingOptions{Program: program,
		AttachType: ebpf.AttachTraceFEntry})
	if err != nil {
		return Support{true, fmt.Errorf("attach a trampoline: %w", err)}
	}
	return Support{true, attached.Close()}
}

func tryKprobe() Support {
	program, err := harmless(ebpf.Kprobe, 0, "")
	if err != nil {
		return Support{true, fmt.Errorf("load a kprobe: %w", err)}
	}
	defer program.Close()
	attached, err := link.Kprobe(tested, program, nil)
	if err != nil {
		return Support{true, fmt.Errorf("attach a kprobe: %w", err)}
	}
	return Support{true, attached.Close()}
}

func tryTracepoint() Support {
	program, err := harmless(ebpf.Tracing, ebpf.AttachTraceRawTp, "inet_sock_set_state")
	if err != nil {
		return Support{true, fmt.Errorf("load a BTF tracepoint: %w", err)}
	}
	defer program.Close()
	attached, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		return Support{true, fmt.Errorf("attach a BTF tracepoint: %w", err)}
	}
	return Support{true, attached.Close()}
}

// ErrCannotTrace says that no backend can see the listen path on this kernel.
var ErrCannotTrace = errors.New("this kernel lets no hook see the listen path")

// The backends. Auto is the best that this kernel allows, hook by hook.
const (
	Auto       = "auto"
	Trampoline = "trampoline"
	Kprobe     = "kprobe"
	Tracepoint = "tracepoint"
	Iterator   = "iterator"
)

// Backends lists what --backend takes.
func Backends() []string { return []string{Auto, Trampoline, Kprobe, Tracepoint} }
