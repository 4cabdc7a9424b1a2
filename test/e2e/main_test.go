// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/test/churn"
)

// program is the synspy under test.
var program string

func TestMain(m *testing.M) {
	if server.HelperMain() || churn.Main() || helperMain() {
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	// No skip: a run without privileges proves nothing.
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr,
			"FAIL: test/e2e traces with BPF and makes network namespaces: run its tests as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "synspy-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		program, err = findProgram(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: test/e2e:", err)
		return 1
	}
	return m.Run()
}

// findProgram returns the program to test, building it if need be.
func findProgram(dir string) (string, error) {
	if path := os.Getenv("SYNSPY"); path != "" {
		return filepath.Abs(path)
	}
	if _, err := exec.LookPath("go"); err == nil {
		path := filepath.Join(dir, "synspy")
		build := exec.Command("go", "build", "-o", path,
			"github.com/synspy/synspy/cmd/synspy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build synspy: %w\n%s", err, out)
		}
		return path, nil
	}
	path, err := exec.LookPath("synspy")
	if err != nil {
		return "", errors.New("no synspy to test: set SYNSPY, or install go")
	}
	return path, nil
}

// helperEnv makes this executable run as one of the servers that the lab lacks.
const helperEnv = "SYNSPY_E2E_HELPER"

// helperMain runs a helper and returns true if this process is one.
func helperMain() bool {
	text, ok := os.LookupEnv(helperEnv)
	if !ok {
		return false
	}
	if err := runHelper(text); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return true
	}
	fmt.Fprintln(os.Stdout, helperReady)
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
	return true
}
