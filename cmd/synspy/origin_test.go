// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestOrigin: what a run writes first says which run it is, of what machine, and by which command.
func TestOrigin(t *testing.T) {
	t.Parallel()
	netns := dropping(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	runs := make(map[string]bool)
	for range 2 {
		stdout, stderr, code := output(t, exec.Command(program, "trace", "--netns", netns,
			"--count", "1", "-o", "json", "--comm", "*"))
		first, _, _ := strings.Cut(stdout, "\n")
		var ready event.Ready
		if err := json.Unmarshal([]byte(first), &ready); err != nil || code != 0 {
			t.Fatalf("%v, exit code %d, standard error:\n%s", err, code, stderr)
		}
		want := event.Origin{Run: ready.Run, Host: host,
			BootID: strings.TrimSpace(string(boot)), Program: event.Program{
				Version: version, Command: "synspy trace --netns " + netns +
					" --count 1 -o json --comm '*'"}}
		if ready.Origin != want || len(ready.Run) < 16 {
			t.Errorf("got %+v, want %+v", ready.Origin, want)
		}
		runs[ready.Run] = true
	}
	if len(runs) != 2 {
		t.Errorf("two runs have the ID %v", runs)
	}
}
