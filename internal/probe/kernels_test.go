// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// The tests also run in virtual machines, without the package's files.
//
//go:embed testdata
var testdata embed.FS

var (
	btfDir = flag.String("btf", "", "folder of NAME.btf files to take testdata/kernels from")
	update = flag.Bool("update", false, "write the plans that testdata holds")
)

// told is what the type information of a kernel tells the plan.
type told struct {
	Functions   map[string]int
	Tracepoints map[string]int
	MIB         [event.NumCounters]uint32
	Reasons     map[string]uint32
	OutNoRoutes uint32
	Migrated    uint32
	RdonlyCast  bool
}

// TestTakeKernels reads the type information of other kernels anew.
func TestTakeKernels(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(*btfDir, "*.btf"))
	if err != nil {
		t.Fatal(err)
	}
	if *btfDir == "" {
		return // nothing was asked for
	}
	for _, file := range files {
		types, err := kernel.ReadTypes(file)
		if err != nil {
			t.Fatal(err)
		}
		var f Facts
		f.read(types)
		if f.MIBErr != nil {
			t.Fatal(file, f.MIBErr)
		}
		text, err := json.MarshalIndent(told{f.Functions, f.Tracepoints, f.MIB, f.Reasons, f.OutNoRoutes, f.Migrated,
			f.RdonlyCast}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".btf") + ".json"
		if err := os.WriteFile(filepath.Join("testdata/kernels", name), append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// kernels lists the names of testdata/kernels.
func kernels(t *testing.T) []string {
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

// kernelFacts is what a kernel of testdata tells of itself, with all backends.
func kernelFacts(t *testing.T, name string) *Facts {
	t.Helper()
	text, err := testdata.ReadFile("testdata/kernels/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var k told
	if err := json.Unmarshal(text, &k); err != nil {
		t.Fatal(err)
	}
	facts := &Facts{Functions: k.Functions, Tracepoints: k.Tracepoints, MIB: k.MIB, Reasons: k.Reasons,
		OutNoRoutes: k.OutNoRoutes, Migrated: k.Migrated, RdonlyCast: k.RdonlyCast, Code: make(map[string][]kernel.Range)}
	for _, f := range placedFunctions() { // what kallsyms names
		if _, has := k.Functions[mptcp]; has || !strings.HasPrefix(f, "subflow_") {
			facts.Code[f] = []kernel.Range{{Start: 3, End: 4}}
		}
	}
	delete(facts.Code, rejectFunction) // in a module, if anywhere
	if strings.HasPrefix(name, "5.10") && strings.HasSuffix(name, "arm64") {
		facts.Trampoline = Support{true, errRefused} // before 6.4
		facts.Code["kfree_skb"] = []kernel.Range{{Start: 3, End: 4}, {Start: 5, End: 6}}
	}
	return facts
}

// TestKernelPlans holds the plans of the matrix's kernels: what each backend hooks
// there, and how, when nothing is refused, and what it cannot tell.
func TestKernelPlans(t *testing.T) {
	for _, name := range kernels(t) {
		t.Run(name, func(t *testing.T) {
			var plans strings.Builder
			for _, backend := range []string{Auto, Trampoline, Kprobe, Tracepoint} {
				describe(&plans, kernelFacts(t, name), backend)
			}
			golden := filepath.Join("testdata/plans", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(plans.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := testdata.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if plans.String() != string(want) {
				t.Errorf("the plans are\n%s\nwant\n%s", plans.String(), want)
			}
		})
	}
}

func describe(to *strings.Builder, facts *Facts, backend string) {
	plan, err := Make(facts, backend)
	if err != nil {
		fmt.Fprintf(to, "%s: none\n\n", backend)
		return
	}
	fmt.Fprintf(to, "%s: %s\n", backend, plan.Backend)
	for _, h := range plan.Hooks {
		fmt.Fprintf(to, "  %-34s %-10s %s%s\n", h.Name, h.Backend, strings.Join(h.Programs, " "), h.Note)
	}
	for _, b := range blindOf(plan) {
		fmt.Fprintf(to, "  blind: %s\n", b)
	}
	to.WriteString("\n")
}

// blindOf lists what a plan cannot tell, a line each.
func blindOf(plan Plan) []string {
	var list []string
	for _, hook := range plan.Hooks {
		for _, b := range hook.Blind {
			text := b.Cause.String()
			if b.Stage != event.StageUnknown {
				text += " at " + b.Stage.String()
			}
			if b.Part != "" {
				text += " (" + b.Part + ")"
			}
			list = append(list, text+": "+b.Shows)
		}
	}
	return list
}
