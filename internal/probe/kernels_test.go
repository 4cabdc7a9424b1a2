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

// TestKernelPlans holds the plans of the matrix's kernels: what each backend hooks
// there, and how, when nothing is refused, and when trampolines are.
func TestKernelPlans(t *testing.T) {
	files, err := fs.Glob(testdata, "testdata/kernels/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d kernels: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			text, err := testdata.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var k told
			if err := json.Unmarshal(text, &k); err != nil {
				t.Fatal(err)
			}
			var plans strings.Builder
			for _, backend := range []string{Auto, Trampoline, Kprobe, Tracepoint} {
				facts := &Facts{Functions: k.Functions, Tracepoints: k.Tracepoints, MIB: k.MIB, Reasons: k.Reasons,
					OutNoRoutes: k.OutNoRoutes, Migrated: k.Migrated, RdonlyCast: k.RdonlyCast,
					Code: map[string][]kernel.Range{"tcp_v4_rcv": {{Start: 1, End: 2}}}}
				for _, f := range append(listenPath(), deaths()...) { // what kallsyms names
					facts.Code[f.name] = []kernel.Range{{Start: 3, End: 4}}
				}
				if strings.HasSuffix(name, "arm64") && strings.HasPrefix(name, "5.10") {
					facts.Trampoline = Support{true, errRefused} // before 6.4
				}
				describe(&plans, facts, backend)
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
	to.WriteString("\n")
}
