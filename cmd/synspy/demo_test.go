// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestDemo: what a newcomer sees first ends with a diagnosis, and with what to do next.
func TestDemo(t *testing.T) {
	if _, err := os.Stat("../../Makefile"); err != nil {
		t.Skip("the tests run without their source: ", err)
	}
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is missing: ", err)
	}
	cmd := exec.Command("make", "-n", "demo")
	cmd.Dir = "../.."
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, step := range []string{"lab run slow-accept", "lab run diagnose-blocked",
		"Next, on a server of yours", "synspy diagnose --port 443"} {
		next := strings.Index(string(text[at:]), step)
		if next < 0 {
			t.Fatalf("after %q there is no %q:\n%s", text[:at], step, text)
		}
		at += next
	}
	for _, name := range []string{"slow-accept", "diagnose-blocked"} {
		if !strings.Contains(labList(t), "\n"+name+" ") {
			t.Errorf("there is no scenario %s", name)
		}
	}
}

func labList(t *testing.T) string {
	t.Helper()
	var stdout, stderr strings.Builder
	if code := run(t.Context(), []string{"lab", "list"},
		plainEnv(&stdout, &stderr)); code != 0 {
		t.Fatal(stderr.String())
	}
	return "\n" + stdout.String()
}
