// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
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
		{name: "all", list: list, want: []string{"accept-queue-full-syn", "syn-queue-full", "slow-accept"}},
		{name: "some, in the list's order", list: list, wanted: []string{"slow-accept", "*-syn"}, want: []string{"accept-queue-full-syn", "slow-accept"}},
		{name: "misspelt", list: list, wanted: []string{"slow-accept", "slow-acept"}, fails: true},
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
		{kernel: "6.1", cells: []cell{
			{kernel: "6.1", name: "unit", backend: testColumn, passed: true, took: 1500 * time.Millisecond, skipped: 2},
			{kernel: "6.1", name: "slow-accept", backend: "kprobe", passed: true, took: time.Second},
			{kernel: "6.1", name: "slow-accept", backend: "tracepoint", took: time.Second, output: []byte("want 5, got 4\n")},
		}},
		{kernel: "6.12", err: errors.New("boot: guest ended early")},
	}
	header, rows := matrixRows(runs)
	if diff := cmp.Diff([]string{"kernel", "scenario", "test", "kprobe", "tracepoint"}, header); diff != "" {
		t.Error(diff)
	}
	want := [][]string{
		{"6.1", "unit", "pass 1.50s, 2 skipped", "-", "-"},
		{"6.1", "slow-accept", "-", "pass 1.00s", "FAIL 1.00s"},
		{"6.12", "(kernel) FAIL", "", "", ""},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	var out bytes.Buffer
	if got := printFailures(&out, runs); got != 2 {
		t.Errorf("got %d failures, want 2", got)
	}
	for _, text := range []string{"FAIL 6.1 slow-accept tracepoint\nwant 5, got 4\n", "FAIL kernel 6.12: boot: guest ended early"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in %q", text, &out)
		}
	}
}

func TestKernelWithoutCellsFails(t *testing.T) {
	var out bytes.Buffer
	if got := printFailures(&out, []kernelRun{{kernel: "6.1"}}); got != 1 {
		t.Errorf("got %d failures, want 1", got)
	}
}

func TestKernelTable(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range kernelTable {
		if seen[k.name] {
			t.Errorf("kernel %s is there twice", k.name)
		}
		seen[k.name] = true
		if _, ok := machines[k.arch]; !ok {
			t.Errorf("kernel %s: no machine for %s", k.name, k.arch)
		}
	}
	if _, err := kernelsByName([]string{"6.12", "2.4"}); !errors.Is(err, errUsage) {
		t.Errorf("unknown kernel: got %v", err)
	}
	standard, err := kernelsByName(nil)
	if err != nil || len(standard) < 3 {
		t.Errorf("standard kernels: got %d, %v", len(standard), err)
	}
}
