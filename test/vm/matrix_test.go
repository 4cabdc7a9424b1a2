// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAvailableBackends(t *testing.T) {
	for _, test := range []struct {
		name, report string
		want         []string
	}{
		{"records", `{"type":"check","backend":"kprobe","available":true}` + "\n" + `{"type":"check","backend":"trampoline","available":false}`, []string{"kprobe"}},
		{"map of booleans", `{"v":1,"backends":{"tracepoint":true,"trampoline":true,"kprobe":false}}`, []string{"trampoline", "tracepoint"}},
		{"map of objects", `{"backends":{"kprobe":{"status":"available"},"trampoline":{"status":"missing"}}}`, []string{"kprobe"}},
		{"list with names", `[{"name":"kprobe","supported":true},{"name":"other","supported":true}]`, []string{"kprobe"}},
		{"a mention is no yes", `{"backend":"trampoline","hooks":["kprobe"]}`, nil},
		{"text", "trampoline: ok\n", nil},
		{"nothing", "", nil},
	} {
		if diff := cmp.Diff(test.want, availableBackends([]byte(test.report))); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestSelectScenarios(t *testing.T) {
	const list = "accept-queue-full-syn  a SYN\n\nsyn-queue-full\n  slow-accept  x\n"
	for _, test := range []struct {
		name   string
		list   string
		wanted []string
		want   []string
		fails  bool
	}{
		{name: "all", list: list, want: []string{"accept-queue-full-syn", "syn-queue-full",
			"slow-accept"}},
		{name: "some, in the list's order", list: list,
			wanted: []string{"slow-accept", "*-syn"},
			want:   []string{"accept-queue-full-syn", "slow-accept"}},
		{name: "misspelt", list: list, wanted: []string{"slow-accept", "slow-acept"},
			fails: true},
		{name: "empty list", list: "\n", fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := selectScenarios(test.list, test.wanted)
			if (err != nil) != test.fails {
				t.Fatalf("got error %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMatrixRows(t *testing.T) {
	runs := []kernelRun{
		{kernel: kernel{name: "6.1"}, cells: []cell{
			{kernel: "6.1", name: "unit", backend: testColumn, verdict: passed,
				took: 1500 * time.Millisecond, skipped: 2},
			{kernel: "6.1", name: "slow-accept", backend: "trampoline", verdict: cannot,
				reason: "too old"},
			{kernel: "6.1", name: "slow-accept", backend: "kprobe", verdict: passed,
				took: time.Second},
			{kernel: "6.1", name: "slow-accept", backend: "tracepoint",
				took: time.Second, output: []byte("want 5, got 4\n")},
		}},
		{kernel: kernel{name: "6.12"}, err: errors.New("boot: guest ended early")},
	}
	header, rows := matrixRows(runs)
	if diff := cmp.Diff([]string{"kernel", "scenario", "test", "trampoline", "kprobe",
		"tracepoint"}, header); diff != "" {
		t.Error(diff)
	}
	want := [][]string{
		{"6.1", "unit", "pass 1.50s, 2 skipped", "-", "-", "-"},
		{"6.1", "slow-accept", "-", "cannot [1]", "pass 1.00s", "FAIL 1.00s"},
		{"6.12", "(kernel) FAIL", "", "", "", ""},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	var out bytes.Buffer
	if got := printFailures(&out, runs); got != 2 {
		t.Errorf("got %d failures, want 2", got)
	}
	for _, text := range []string{"FAIL 6.1 slow-accept tracepoint\nwant 5, got 4\n",
		"FAIL kernel 6.12: boot: guest ended early"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in %q", text, &out)
		}
	}
}

func TestKernelWithoutCellsFails(t *testing.T) {
	var out bytes.Buffer
	if got := printFailures(&out, []kernelRun{{kernel: kernel{name: "6.1"}}}); got != 1 {
		t.Errorf("got %d failures, want 1", got)
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name     string
		status   int
		reason   string
		want     verdict
		complain bool
	}{
		{name: "passed", status: 0, want: passed},
		{name: "failed", status: 1, want: failed},
		{name: "timed out", status: 124, want: failed},
		{name: "cannot, as expected", status: 3, reason: "too old", want: cannot},
		{name: "cannot, out of the blue", status: 3, want: failed, complain: true},
		{name: "can after all", status: 0, reason: "too old", want: failed, complain: true},
		{name: "expected not to, yet wrong", status: 1, reason: "too old", want: failed},
	} {
		got, complaint := judge(test.status, test.reason)
		if got != test.want || (complaint != "") != test.complain {
			t.Errorf("%s: got %v, %q", test.name, got, complaint)
		}
	}
}

func TestMissingBackend(t *testing.T) {
	const report = `{"name":"trampoline","backend":"trampoline","available":false,"detail":"attach: not supported"}` + "\n"
	old := kernel{name: "old", cannot: []exception{{backend: "trampoline", reason: "too old"}}}
	for _, test := range []struct {
		kernel kernel
		want   []cell
	}{
		{old, []cell{
			{kernel: "old", name: "a", backend: "trampoline", verdict: cannot,
				reason: "too old"},
			{kernel: "old", name: "b", backend: "trampoline", verdict: cannot,
				reason: "too old"},
		}},
		{kernel{name: "new"}, []cell{
			{kernel: "new", name: "(backend)", backend: "trampoline",
				output: []byte("synspy check: attach: not supported")},
		}},
	} {
		d := driver{run: &kernelRun{kernel: test.kernel}}
		d.missing("trampoline", []string{"a", "b"}, []byte(report))
		if diff := cmp.Diff(test.want, d.run.cells,
			cmp.AllowUnexported(cell{})); diff != "" {
			t.Errorf("%s: %s", test.kernel.name, diff)
		}
	}
}

// TestStandardSelection: between them the standard kernels play everything: each backend
// the scenarios on two of them, and the end-to-end tests on one.
func TestStandardSelection(t *testing.T) {
	standard, err := kernelsByName([]string{standardKernels})
	if err != nil {
		t.Fatal(err)
	}
	tests := []testBinary{{name: "e2e"}}
	plays := make(map[string]int)
	for _, k := range standard {
		run := &kernelRun{kernel: k}
		played := (&driver{options: matrixOptions{short: true}, run: run}).backends()
		for _, backend := range played {
			plays[backend]++
		}
		if !slices.Contains(played, k.standard) {
			t.Errorf("%s: %v, without %s", k.name, played, k.standard)
		}
		if all := (&driver{run: run}).backends(); !slices.Equal(all, allBackends) {
			t.Errorf("%s, named: %v", k.name, all)
		}
		for _, backend := range allBackends {
			d := driver{options: matrixOptions{short: true, endToEnd: tests},
				run: &kernelRun{kernel: k}}
			if got, want := len(d.endToEnd(backend)) == 1,
				k.standard == backend; got != want {
				t.Errorf("%s by %s: end-to-end tests run: %t, want %t", k.name,
					backend, got, want)
			}
			d.options.short = false
			if len(d.endToEnd(backend)) != 1 {
				t.Errorf("%s by %s, named: no end-to-end test", k.name, backend)
			}
		}
	}
	for _, backend := range allBackends {
		if plays[backend] != 2 {
			t.Errorf("%s plays on %d kernels, want 2", backend, plays[backend])
		}
	}
}
