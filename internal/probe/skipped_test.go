// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"log/slog"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// TestAttachLate: a twin is attached once its program was skipped, not before, once; and what was skipped until then is told.
func TestAttachLate(t *testing.T) {
	facts, err := Gather("")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(facts, Tracepoint, Config{Rate: 100, RingSize: 1 << 16}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const first = "tp_btf_inet_sock_set_state"
	var (
		kernel   uint64
		attached []string
	)
	read := func(name string, _ *ebpf.Program) (uint64, error) {
		if name != first {
			return 0, nil
		}
		return kernel, nil
	}
	one := func(hook *Hook, name string, program *ebpf.Program) (link.Link, error) {
		attached = append(attached, name)
		return attachProgram(hook, name, program)
	}
	for _, step := range []struct {
		kernel, told uint64 // runs of the program that were skipped, and lost
		attached     int
	}{{0, 0, 0}, {0, 0, 0}, {3, 3, 1}, {7, 3, 1}} {
		kernel = step.kernel
		if err := p.attachLate(read, one); err != nil {
			t.Fatal(err)
		}
		lost, err := p.skipped(read)
		if err != nil {
			t.Fatal(err)
		}
		if lost != step.told || len(attached) != step.attached {
			t.Errorf("skipped %d: told %d, attached %v, want %d and %d programs", step.kernel, lost, attached, step.told, step.attached)
		}
	}
	for _, name := range attached {
		if name != first+twin {
			t.Errorf("attached %s", name)
		}
	}
}
