// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestRenderVerified(t *testing.T) {
	printed := func(output string) cell {
		return cell{name: "probe", backend: testColumn, output: []byte(output)}
	}
	runs := []kernelRun{
		{kernel: kernel{name: "5.10"},
			cells: []cell{printed("    load_test.go:40: fexit_tcp_check_req: 4000 instructions verified\n")}},
		{kernel: kernel{name: "6.12"}, cells: []cell{printed(
			"    load_test.go:40: fexit_tcp_check_req: 3000 instructions verified\n" +
				"    load_test.go:40: snapshot: 20000 instructions verified\n" +
				"    load_test.go:40: fexit_tcp_check_req: 3500 instructions verified\n")}},
		{kernel: kernel{name: "6.1"}},
	}
	var out strings.Builder
	if err := renderVerified(&out, runs); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "│") {
			rows = append(rows,
				strings.Join(strings.Fields(strings.ReplaceAll(line, "│", " ")),
					" "))
		}
	}
	want := []string{"instructions verified 5.10 6.12", "margin to 1000000 250 times 50 times",
		"snapshot - 20000", "fexit_tcp_check_req 4000 3500"}
	if strings.Join(rows, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", rows, want)
	}
	if err := renderVerified(&out, runs[2:]); err != nil {
		t.Error(err)
	}
}
