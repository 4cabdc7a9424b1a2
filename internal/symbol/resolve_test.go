// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

func newSymbols(t *testing.T) *Symbols {
	t.Helper()
	s := New(slog.New(
		slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(s.Close)
	return s
}

func resolve(t *testing.T, s *Symbols, stack Stack) Named {
	t.Helper()
	named := s.Resolve(context.Background(), []Stack{stack})
	if len(named) != 1 {
		t.Fatalf("one stack became %d", len(named))
	}
	return named[0]
}

// codeOf is where a Go function begins.
func codeOf(f any) uint64 { return uint64(reflect.ValueOf(f).Pointer()) }

func TestResolveOwnFunction(t *testing.T) {
	named := resolve(t, newSymbols(t),
		Stack{PID: uint32(os.Getpid()), User: []uint64{codeOf(TestResolveOwnFunction) + 5}})
	if len(named.Frames) != 1 {
		t.Fatalf("got %+v", named)
	}
	frame := named.Frames[0]
	if !strings.HasSuffix(frame.Function, "symbol.TestResolveOwnFunction") ||
		frame.Offset != 5 || frame.Module == "" || frame.Kernel {
		t.Errorf("got %+v", frame)
	}
}

// TestResolveCutsGarbage: what a walk by frame pointers meets in code without them has no name,
// though it may be an address of code.
func TestResolveCutsGarbage(t *testing.T) {
	leaf := codeOf(TestResolveCutsGarbage)
	for name, garbage := range map[string]uint64{"no code": 0x10,
		"no place to return to": leaf + 1, "kernel": 1<<64 - 4096} {
		named := resolve(t, newSymbols(t),
			Stack{PID: uint32(os.Getpid()), User: []uint64{leaf, garbage, leaf}})
		if len(named.Frames) != 1 || !named.Cut {
			t.Errorf("%s: got %+v", name, named)
		}
	}
}

//go:noinline
func callsForReturns() uint64 { return returnsTo() + 0 }

// returnsTo is where its caller goes on.
//
//go:noinline
func returnsTo() uint64 {
	callers := make([]uintptr, 1)
	runtime.Callers(2, callers)
	return uint64(callers[0])
}

// TestResolveTellsWhoWasCalled: a leaf without a frame hides its caller, whom the caller's caller
// knows.
func TestResolveTellsWhoWasCalled(t *testing.T) {
	back, leaf, pid := callsForReturns(), codeOf(TestResolveTellsWhoWasCalled),
		uint32(os.Getpid())
	named := resolve(t, newSymbols(t), Stack{PID: pid, User: []uint64{leaf, back}})
	if len(named.Frames) != 3 || named.Cut {
		t.Fatalf("got %+v", named)
	}
	if f := named.Frames[1]; !f.Called || !strings.HasSuffix(f.Function, "symbol.returnsTo") ||
		f.Offset != 0 {
		t.Errorf("got %+v", f)
	}
	if f := named.Frames[2]; f.Called ||
		!strings.HasSuffix(f.Function, "symbol.callsForReturns") {
		t.Errorf("got %+v", f)
	}
	// Where the leaf is whom the call calls, nobody is missing.
	if named = resolve(t, newSymbols(t),
		Stack{PID: pid, User: []uint64{codeOf(returnsTo), back}}); len(named.Frames) != 2 {
		t.Errorf("got %+v", named)
	}
}

// TestResolvePerfMap: code that is in no file is called what the process said in its perf map, and
// nothing where it said nothing.
func TestResolvePerfMap(t *testing.T) {
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC,
		unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(code) }()
	address := uint64(uintptr(unsafe.Pointer(&code[0])))
	path := fmt.Sprintf("/tmp/perf-%d.map", os.Getpid())
	if err := os.WriteFile(path, fmt.Appendf(nil, "%x 40 JS:*accept\xff server.js\n",
		address+0x100), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	s := newSymbols(t)
	pid := uint32(os.Getpid())
	named := resolve(t, s,
		Stack{PID: pid, User: []uint64{address + 0x101, address + 0x110, address + 0x200}})
	want := []event.Frame{
		{Function: "JS:*accept\uFFFD server.js", Module: "[jit]", Offset: 1},
		{Function: "JS:*accept\uFFFD server.js", Module: "[jit]", Offset: 0x10},
		{Address: address + 0x200},
	}
	if !reflect.DeepEqual(named.Frames, want) {
		t.Errorf("got %+v, want %+v", named.Frames, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/kallsyms", path); err != nil {
		t.Fatal(err)
	}
	named = resolve(t, s, Stack{PID: pid, User: []uint64{address + 0x101}})
	if want := []event.Frame{{Address: address + 0x101}}; !reflect.DeepEqual(named.Frames,
		want) {
		t.Errorf("from something else than a file: got %+v", named.Frames)
	}
}

// TestResolveAfterExit: what was seen of a process is known when it is gone.
func TestResolveAfterExit(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWaits$")
	cmd.Env = append(os.Environ(), waitsEnv+"=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = output.Read(make([]byte, 1)) // it runs
	s := newSymbols(t)
	pid := uint32(cmd.Process.Pid)
	err = s.Watch(pid)
	input.Close()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	named := resolve(t, s, Stack{PID: pid, User: []uint64{codeOf(TestResolveAfterExit)}}) // no PIE: the same place
	if len(named.Frames) != 1 ||
		!strings.HasSuffix(named.Frames[0].Function, "TestResolveAfterExit") {
		t.Errorf("got %+v", named)
	}
	// One that was never seen is unknown, and its stack is not cut for that.
	named = resolve(t, s, Stack{PID: 1 << 30, User: []uint64{1, 2}})
	if want := []event.Frame{{Address: 1}, {Address: 2}}; !reflect.DeepEqual(named.Frames,
		want) || named.Cut {
		t.Errorf("got %+v", named)
	}
}

const waitsEnv = "SYNSPY_SYMBOL_WAITS"

// TestWaits is no test, but a process to look at.
func TestWaits(t *testing.T) {
	if os.Getenv(waitsEnv) != "" {
		fmt.Println("ready")
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}

func TestResolveVDSO(t *testing.T) {
	p, err := openProcess("/proc", uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	mappings, err := p.readMaps(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mappings {
		if m.path != vdsoName {
			continue
		}
		image, err := ownVDSO()
		if err != nil {
			t.Fatal(err)
		}
		i, err := openImage(strings.NewReader(string(image)))
		if err != nil {
			t.Fatal(err)
		}
		named := resolve(t, newSymbols(t),
			Stack{PID: uint32(os.Getpid()),
				User: []uint64{m.start + i.firstFunction(t)}})
		if len(named.Frames) != 1 || named.Frames[0].Function == "" ||
			named.Frames[0].Module != vdsoName {
			t.Errorf("got %+v", named)
		}
		return
	}
	t.Log("this kernel has no vDSO")
}

// firstFunction is the address of some exported function.
func (i *image) firstFunction(t *testing.T) uint64 {
	t.Helper()
	table, ok := i.section(".dynsym")
	if !ok {
		t.Fatal("no symbols")
	}
	for at := uint64(symbolSize); at < table.Size; at += symbolSize {
		var value, info [8]byte
		if _, err := i.file.ReadAt(value[:], int64(table.Off+at+8)); err != nil {
			t.Fatal(err)
		}
		if _, err := i.file.ReadAt(info[:], int64(table.Off+at)); err != nil {
			t.Fatal(err)
		}
		if address := i.order.Uint64(value[:]); info[4]&0xf == function && address != 0 {
			return address
		}
	}
	t.Fatal("no function")
	return 0
}

func TestResolveKernel(t *testing.T) {
	raw, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	var address uint64
	for line := range strings.Lines(string(raw)) {
		if strings.HasSuffix(line, " T schedule\n") {
			if _, err := fmt.Sscanf(line, "%x", &address); err != nil {
				t.Fatal(err)
			}
		}
	}
	if address == 0 {
		t.Fatal("the kernel's symbols are hidden: run as root")
	}
	named := resolve(t, newSymbols(t), Stack{Kernel: []uint64{address + 4, 1<<64 - 1}})
	want := []event.Frame{{Kernel: true, Function: "schedule", Module: "[kernel]", Offset: 4},
		{Kernel: true, Address: 1<<64 - 1}}
	if !reflect.DeepEqual(named.Frames, want) {
		t.Errorf("got %+v, want %+v", named.Frames, want)
	}
}

func TestSchedulerFramesAreLeftOut(t *testing.T) {
	frames := func(names string) (list []event.Frame) {
		for _, name := range strings.Fields(names) {
			list = append(list, event.Frame{Function: name, Kernel: true})
		}
		return list
	}
	for names, want := range map[string]int{
		"bpf_prog_1 bpf_trace_run4 __schedule schedule do_nanosleep": 4,
		"__schedule preempt_schedule_irq":                            1,
		"do_nanosleep":                                               0,
		"__schedule":                                                 0,
		"":                                                           0,
	} {
		if got := scheduler(frames(names)); got != want {
			t.Errorf("%s: %d, want %d", names, got, want)
		}
	}
}

func TestReadable(t *testing.T) {
	for name, want := range map[string]string{
		"clock_nanosleep@@GLIBC_2.17": "clock_nanosleep",
		"_ZN4node5StartEiPPc":         "node::Start",
		"_RNvC6_123foo3bar":           "123foo::bar",
		"main.(*server).accept":       "main.(*server).accept",
		"_Z" + strings.Repeat("9", 3000): "_Z" + strings.Repeat("9", maxName-2) +
			"…",
		"bad\xffname":                           "bad\uFFFDname",
		"_ZN" + strings.Repeat("1a", 900) + "E": "", // whatever, but bounded
	} {
		got := readable(name)
		if want != "" && got != want || len(got) > maxName+len("…") {
			t.Errorf("%.40s: got %q, want %q", name, got, want)
		}
	}
}
