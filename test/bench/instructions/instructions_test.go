// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synspy/synspy/test/bench/command"
	"github.com/synspy/synspy/test/bench/tracer"
)

// someInstructions is what two boots counted.
func someInstructions() *instructions {
	boot := func(before, trace, after float64) *counting {
		return &counting{Counted: []counted{
			{Verb: tracer.VerbUntraced, Operation: "syn_answered", Median: before},
			{Verb: tracer.VerbTrace, Backend: "kprobe", Operation: "syn_answered", Median: trace,
				Programs: []programCount{{"kretprobe_tcp_v4_conn_request", 1, 1234}}},
			{Verb: tracer.VerbUntraced, Operation: "syn_answered", Median: after},
		}}
	}
	return &instructions{Builds: builds{"6.12.1-1 6.12.1", "clang 19", "QEMU 7"},
		Boots: []*counting{boot(10_990, 13_600, 11_010), boot(11_000, 13_620, 11_000)}}
}

// What a tracer adds is told beside the mean of what was counted before and after it.
func TestCosts(t *testing.T) {
	costs := someInstructions().costs()
	if got := costs[cost{verb: tracer.VerbUntraced, operation: "syn_answered"}]; got.value != 11_000 || got.spread != 0 {
		t.Errorf("untraced: %+v", got)
	}
	if got := costs[cost{verb: tracer.VerbTrace, backend: "kprobe", operation: "syn_answered"}]; got.value != 2610 || got.spread != 20 {
		t.Errorf("trace adds %+v, want 2610 with a spread of 20", got)
	}
}

func TestWriteBenchmarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := os.WriteFile(path, []byte("before\n"+countsBegin+"\nold\n"+countsEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // written twice it says the same
		if err := writeBenchmarks(path, someInstructions()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n" + countsBegin, countsEnd + "\nafter\n", "clang 19", "QEMU 7", "booted: 2",
		"| operation | untraced | trace, kprobe |\n|---|---|---|\n| SYN answered | 11,000 | +2,610 |\n",
		"| trace, kprobe | syn_answered | kretprobe_tcp_v4_conn_request | 1.00 | 1,234 |\n"} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("not once %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Errorf("old figures stayed:\n%s", text)
	}
}

func TestGrouped(t *testing.T) {
	for value, want := range map[float64]string{0: "0", -0.4: "0", 999.6: "1,000", 12_766: "12,766", -1_057: "-1,057", 1_234_567: "1,234,567"} {
		if got := grouped(value); got != want {
			t.Errorf("%v is written %s, want %s", value, got, want)
		}
	}
}

func TestChooseWhatIsCounted(t *testing.T) {
	var c countConfig
	list := command.NameList{Into: &c.verbs, Known: countingVerbs}
	if err := list.Set("trace,empty"); err != nil || !c.wants(tracer.VerbEmpty) || c.wants(tracer.VerbDiagnose) {
		t.Errorf("verbs %v, %v", c.verbs, err)
	}
	if err := list.Set("trace,nothing"); err == nil {
		t.Error("a verb that is none is taken")
	}
	pattern := operationPattern{into: &c.operations}
	if err := pattern.Set("_dropped$"); err != nil || len(c.operations) != 2 {
		t.Errorf("operations %v, %v", c.operations, err)
	}
	if err := pattern.Set("nothing"); err == nil {
		t.Error("a pattern that matches nothing is taken")
	}
}

// A half with a tracer is compared with both halves around it.
