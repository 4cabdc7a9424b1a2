// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// The tests also run in virtual machines, without the package's files.
//
//go:embed testdata/plans
var plans embed.FS

var (
	btfDir = flag.String("btf", "", "folder of NAME.btf files to take testdata/kernels from")
	update = flag.Bool("update", false, "write the plans that testdata holds")
)

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
		var f facts.Facts
		f.Read(types)
		if f.MIBErr != nil {
			t.Fatal(file, f.MIBErr)
		}
		text, err := json.MarshalIndent(probetest.Told{Functions: f.Functions,
			Tracepoints: f.Tracepoints, MIB: f.MIB,
			Reasons: f.Reasons, OutNoRoutes: f.OutNoRoutes, Migrated: f.Migrated, RdonlyCast: f.RdonlyCast}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".btf") + ".json"
		if err := os.WriteFile(filepath.Join("../probetest/testdata/kernels", name),
			append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKernelPlans holds the plans of the matrix's kernels: what each backend hooks
// there, and how, when nothing is refused, and what it cannot tell.
func TestKernelPlans(t *testing.T) {
	for _, name := range probetest.Kernels(t) {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for _, backend := range []string{facts.Auto, facts.Trampoline, facts.Kprobe,
				facts.Tracepoint} {
				describe(&text, probetest.KernelFacts(t, name), backend)
			}
			golden := filepath.Join("testdata/plans", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(text.String()),
					0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := plans.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if text.String() != string(want) {
				t.Errorf("the plans are\n%s\nwant\n%s", text.String(), want)
			}
		})
	}
}

func describe(to *strings.Builder, facts *facts.Facts, backend string) {
	plan, err := Make(facts, backend)
	if err != nil {
		fmt.Fprintf(to, "%s: none\n\n", backend)
		return
	}
	fmt.Fprintf(to, "%s: %s\n", backend, plan.Backend)
	for _, h := range plan.Hooks {
		fmt.Fprintf(to, "  %-34s %-10s %s%s\n", h.Name, h.Backend,
			strings.Join(h.Programs, " "), h.Note)
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
