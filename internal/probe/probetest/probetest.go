// SPDX-License-Identifier: Apache-2.0

// Package probetest has what tests of the probe share: what other kernels tell of themselves, and
// how much of a program the verifier walked.
package probetest

import (
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
)

// The tests also run in virtual machines, without the package's files.
//
//go:embed testdata/kernels
var testdata embed.FS

// ErrRefused is what tests have hooks refused with.
var ErrRefused = errors.New("operation not permitted")

// FakeLink is a hook that was not refused.
type FakeLink struct{ link.Link }

// Close does nothing.
func (FakeLink) Close() error { return nil }

// Told is what the type information of a kernel tells the plan.
type Told struct {
	Functions   map[string]int
	Tracepoints map[string]int
	MIB         [event.NumCounters]uint32
	Reasons     map[string]uint32
	OutNoRoutes uint32
	Migrated    uint32
	RdonlyCast  bool
}

// Kernels lists the names of testdata/kernels.
func Kernels(t *testing.T) []string {
	t.Helper()
	files, err := fs.Glob(testdata, "testdata/kernels/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d kernels: %v", len(files), err)
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".json")
	}
	return files
}

// KernelFacts is what a kernel of testdata tells of itself, with all backends.
func KernelFacts(t *testing.T, name string) *facts.Facts {
	t.Helper()
	text, err := testdata.ReadFile("testdata/kernels/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var k Told
	if err := json.Unmarshal(text, &k); err != nil {
		t.Fatal(err)
	}
	here := &facts.Facts{Functions: k.Functions, Tracepoints: k.Tracepoints, MIB: k.MIB,
		Reasons:     k.Reasons,
		OutNoRoutes: k.OutNoRoutes, Migrated: k.Migrated, RdonlyCast: k.RdonlyCast, Code: make(map[string][]kernel.Range)}
	for _, f := range facts.PlacedFunctions() { // what kallsyms names
		if _, has := k.Functions[facts.Mptcp]; has || !strings.HasPrefix(f, "subflow_") {
			here.Code[f] = []kernel.Range{{Start: 3, End: 4}}
		}
	}
	delete(here.Code, facts.RejectFunction) // in a module, if anywhere
	if strings.HasPrefix(name, "5.10") && strings.HasSuffix(name, "arm64") {
		here.Trampoline = facts.Support{Known: true, Err: ErrRefused} // before 6.4
		here.Code["kfree_skb"] = []kernel.Range{{Start: 3, End: 4}, {Start: 5, End: 6}}
	}
	return here
}

// processed is how the verifier ends what it says of a program that it takes.
var processed = regexp.MustCompile(`processed (\d+) insns`)

// LogVerified tells how much of each program the verifier walked, of a million that it walks at most.
// test/vm makes a table of these lines. Before 5.16 the log alone has it.
func LogVerified(t *testing.T, programs map[string]*ebpf.Program) {
	t.Helper()
	for name, program := range programs {
		info, err := program.Info()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n, ok := info.VerifiedInstructions(); ok {
			t.Logf("%s: %d instructions verified", name, n)
		} else if said := processed.FindStringSubmatch(program.VerifierLog); said != nil {
			t.Logf("%s: %s instructions verified", name, said[1])
		}
	}
}
