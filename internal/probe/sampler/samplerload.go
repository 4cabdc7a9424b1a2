// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
)

// open loads each program by itself, so that one may be refused without the others.
func (s *Sampler) open(btfFile string) error {
	// Kernels before 5.11 charge BPF memory to this limit.
	_ = rlimit.RemoveMemlock()
	spec, err := bpf.LoadSampler()
	if err != nil {
		return fmt.Errorf("read BPF objects: %w", err)
	}
	s.frames = min(int(spec.Maps[bpf.SamplerMapStacks].ValueSize)/8, maxStack())
	spec.Maps[bpf.SamplerMapStacks].ValueSize = uint32(s.frames) * 8
	s.support.Delay = delayKept()
	shape := s.readTypes(spec, btfFile)
	if err := spec.Variables[bpf.SamplerVarHaveTaskPtRegs].Set(s.support.SleepersUser); err != nil {
		return fmt.Errorf("set up sampler: %w", err)
	}
	options := ebpf.CollectionOptions{Cache: btf.NewCache()}
	if btfFile != "" && shape == nil {
		if options.Programs.KernelTypes, err = btf.LoadSpec(btfFile); err != nil {
			return fmt.Errorf("load type information: %w", err)
		}
	}
	bare := spec.Copy()
	clear(bare.Programs)
	if s.maps, err = ebpf.NewCollectionWithOptions(bare, options); err != nil {
		return fmt.Errorf("make the sampler's maps: %w", err)
	}
	options.MapReplacements = s.maps.Maps

	s.support.OnCPU = s.tried("samples", s.openClocks(spec, options))
	if shape != nil {
		s.support.OffCPU, s.support.Sleepers = facts.Support{Known: true,
			Err: shape}, facts.Support{Known: true, Err: shape}
	} else {
		s.support.OffCPU = s.tried("absences", s.openSwitches(spec, options))
		s.support.Sleepers = s.support.OffCPU // without the one, nobody sees the other wake
		if s.support.OffCPU.Yes() {
			s.support.Sleepers = s.tried("sleepers", s.openSleepers(spec, options))
		}
	}
	if !s.support.OnCPU.Yes() && !s.support.OffCPU.Yes() {
		return fmt.Errorf("%w: %w; %w", ErrCannotSample, s.support.OnCPU.Err,
			s.support.OffCPU.Err)
	}
	return s.rest() // it was attached to learn whether that is allowed
}

func (s *Sampler) tried(what string, err error) facts.Support {
	if err != nil {
		s.log.Debug("sampler does without", "part", what, "err", err)
	}
	return facts.Support{Known: true, Err: err}
}

// errSwitchShape says that sched_switch is none of those known.
var errSwitchShape = errors.New("sched_switch has other arguments than synspy knows")

// readTypes decides from type information what sched_switch hands over: preempt, previous and next
// thread, and from 5.18 on the previous one's state. Were they in another order, as in
// release candidates of 5.18, the verifier would refuse to take a number for a thread.
func (s *Sampler) readTypes(spec *ebpf.CollectionSpec, btfFile string) error {
	types, err := kernel.ReadTypes(btfFile)
	if err != nil {
		return fmt.Errorf("%w: %w", facts.ErrNoBTF, err)
	}
	arguments := types.Tracepoints("sched_switch")["sched_switch"]
	if arguments != 3 && arguments != 4 {
		return errSwitchShape
	}
	_, s.support.SleepersUser = types.Functions(facts.RegistersFunction)[facts.RegistersFunction]
	return spec.Variables[bpf.SamplerVarHavePrevState].Set(arguments == 4)
}

// delayKept reports whether this kernel adds up how long threads wait for a CPU. It then has
// counted how often this one got one, the last of three numbers.
func delayKept() bool {
	raw, err := os.ReadFile("/proc/thread-self/schedstat")
	fields := strings.Fields(string(raw))
	return err == nil && len(fields) == 3 && fields[2] != "0"
}

// maxStack is how many frames the kernel lets a stack have.
func maxStack() int {
	const unlimited = 1 << 16
	raw, err := os.ReadFile("/proc/sys/kernel/perf_event_max_stack")
	if err != nil {
		return unlimited // then making the map tells
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || n <= 0 {
		return unlimited
	}
	return n
}

// load puts one program into the kernel, on the sampler's maps.
func (s *Sampler) load(spec *ebpf.CollectionSpec, options ebpf.CollectionOptions,
	name string) (*ebpf.Program, error) {
	only := spec.Copy()
	for other := range only.Programs {
		if other != name {
			delete(only.Programs, other)
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(only, options)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	s.programs = append(s.programs, collection)
	return collection.Programs[name], nil
}

func (s *Sampler) openSwitches(spec *ebpf.CollectionSpec, options ebpf.CollectionOptions) error {
	program, err := s.load(spec, options, bpf.SamplerProgTpBtfSchedSwitch)
	if err != nil {
		return err
	}
	attached, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		return fmt.Errorf("attach to sched_switch: %w", err)
	}
	s.switches, s.attached = program, attached
	return nil
}

func (s *Sampler) openSleepers(spec *ebpf.CollectionSpec,
	options ebpf.CollectionOptions) (err error) {
	s.sleepers, err = s.load(spec, options, bpf.SamplerProgIterTask)
	return err
}

// openClocks makes a clock of each CPU call the program. Its descriptor is all that holds it:
// perf event links came with 5.15.
func (s *Sampler) openClocks(spec *ebpf.CollectionSpec, options ebpf.CollectionOptions) error {
	program, err := s.load(spec, options, bpf.SamplerProgPerfEventCpuClock)
	if err != nil {
		return err
	}
	cpus, err := kernel.OnlineCPUs()
	if err != nil {
		return err
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: SamplerHz, Bits: unix.PerfBitFreq | unix.PerfBitDisabled,
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	for _, cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) {
			continue // it went offline
		}
		if err != nil {
			return errors.Join(fmt.Errorf("open the clock of CPU %d: %w", cpu, err),
				s.closeClocks())
		}
		s.clocks = append(s.clocks, fd)
		if err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF,
			program.FD()); err == nil {
			err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("sample by the clock of CPU %d: %w", cpu,
				err), s.closeClocks())
		}
	}
	s.ticking = true
	return nil
}

func (s *Sampler) closeClocks() error {
	var errs []error
	for _, fd := range s.clocks {
		errs = append(errs, unix.Close(fd))
	}
	s.clocks = nil
	return errors.Join(errs...)
}

// Close detaches everything and frees it.
func (s *Sampler) Close() error {
	errs := []error{s.rest(), s.closeClocks()}
	for _, collection := range s.programs {
		collection.Close()
	}
	if s.maps != nil {
		s.maps.Close()
	}
	return errors.Join(errs...)
}
