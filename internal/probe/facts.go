package probe

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
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

	Functions   map[string]int            // arguments of the functions that hooks name, by BTF
	Tracepoints map[string]int            // arguments of BTF tracepoints, without the context
	MIB         [event.NumCounters]uint32 // indices in struct linux_mib
	MIBErr      error
	RdonlyCast  bool // kfunc bpf_rdonly_cast: 6.2
	Loop        bool // helper bpf_loop: 5.17

	Code     map[string][]kernel.Range // of functions that free packets
	CodeErr  error
	CPUs     []int
	types    *btf.Spec
	external bool
}

// ErrNoBTF says that neither the kernel nor --btf provides type information.
var ErrNoBTF = errors.New("this kernel provides no BTF type information")

// CheckBTF tells whether the file holds type information.
func CheckBTF(file string) error {
	if _, err := btf.LoadSpec(file); err != nil {
		return fmt.Errorf("load type information: %w", err)
	}
	return nil
}

// Gather finds the facts of the running kernel that the backend's plan needs;
// for an empty backend, all. btfFile, if not empty, replaces the kernel's own
// type information. Facts that cannot be had are told inside; the error is for
// a btfFile that cannot be used.
func Gather(btfFile, backend string) (*Facts, error) {
	facts := &Facts{Release: kernel.Release(), Arch: runtime.GOARCH}
	// Kernels before 5.11 charge BPF memory to this limit.
	_ = rlimit.RemoveMemlock()

	var err error
	if btfFile != "" {
		facts.types, err = btf.LoadSpec(btfFile)
		if err != nil {
			return nil, fmt.Errorf("load type information: %w", err)
		}
		facts.external = true
	} else if facts.types, err = btf.LoadKernelSpec(); err != nil {
		facts.BTF = fmt.Errorf("%w: %w", ErrNoBTF, err)
		return facts, nil
	}
	facts.readTypes()
	facts.MIBErr = facts.readCounters(btfFile)
	if facts.CPUs, err = kernel.OnlineCPUs(); err != nil {
		return nil, err
	}
	facts.try(backend)
	return facts, nil
}

// try tests what the backend's plan needs to be known. The best backend comes
// first, so that where it works the others are not tested.
func (f *Facts) try(backend string) {
	all := backend == ""
	if all || backend == Auto || backend == Trampoline {
		f.Trampoline = tryTrampoline()
	}
	if all || backend == Kprobe || (backend == Auto && !f.Trampoline.Yes()) {
		f.Kprobe = tryKprobe()
	}
	if all || backend == Tracepoint || (backend == Auto && !f.Trampoline.Yes() && !f.Kprobe.Yes()) {
		f.Tracepoint = tryTracepoint()
		f.Code, f.CodeErr = kernel.CodeRanges(freeingFunctions()...)
	}
}

// readTypes takes from BTF what the plan asks.
func (f *Facts) readTypes() {
	f.Functions = make(map[string]int)
	for _, name := range hookedFunctions() {
		var fn *btf.Func
		if f.types.TypeByName(name, &fn) != nil {
			continue
		}
		if proto, ok := fn.Type.(*btf.FuncProto); ok {
			f.Functions[name] = len(proto.Params)
		}
	}
	f.Tracepoints = make(map[string]int)
	for _, name := range hookedTracepoints() {
		var def *btf.Typedef
		if f.types.TypeByName("btf_trace_"+name, &def) != nil {
			continue
		}
		if ptr, ok := def.Type.(*btf.Pointer); ok {
			if proto, ok := ptr.Target.(*btf.FuncProto); ok {
				f.Tracepoints[name] = len(proto.Params) - 1
			}
		}
	}
	var cast *btf.Func
	f.RdonlyCast = f.types.TypeByName("bpf_rdonly_cast", &cast) == nil
	f.Loop = features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop) == nil
}

// readCounters finds each counter's index: the enumerators of an anonymous enum.
func (f *Facts) readCounters(file string) error {
	indices, err := kernel.AnonymousEnum(file, "LINUX_MIB_NUM")
	if err != nil {
		return fmt.Errorf("find the kernel's counters: %w", err)
	}
	for c := range event.NumCounters {
		index, ok := indices[c.MIB()]
		if !ok {
			return fmt.Errorf("find the kernel's counters: no %s", c.MIB())
		}
		f.MIB[c] = index
	}
	return nil
}

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
	defer program.Close() //nolint:errcheck // a try
	attached, err := link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceFEntry})
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
	defer program.Close() //nolint:errcheck // a try
	attached, err := link.Kprobe(tested, program, nil)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = errors.New("this kernel has no kprobes")
		}
		return Support{true, fmt.Errorf("attach a kprobe: %w", err)}
	}
	return Support{true, attached.Close()}
}

func tryTracepoint() Support {
	program, err := harmless(ebpf.Tracing, ebpf.AttachTraceRawTp, "inet_sock_set_state")
	if err != nil {
		return Support{true, fmt.Errorf("load a BTF tracepoint: %w", err)}
	}
	defer program.Close() //nolint:errcheck // a try
	attached, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		return Support{true, fmt.Errorf("attach a BTF tracepoint: %w", err)}
	}
	return Support{true, attached.Close()}
}
