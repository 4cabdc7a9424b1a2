// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/synspy/synspy/internal/cli"
)

// program is a copy of this test binary that is called synspy and then is it.
// Anybody may execute it: some tests are not root.
var program string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "synspy" {
		main() // does not return, but for a server of the lab
		return
	}
	if cli.LabHelper() {
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	// No skip: without privileges, what matters would not be tested.
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr,
			"FAIL: cmd/synspy traces with BPF and makes network namespaces: run its tests as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "synspy-cmd-")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "synspy")
		err = copyProgram(dir, program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: cmd/synspy:", err)
		return 1
	}
	return m.Run()
}

// copyProgram copies: a link would lead nobody into go's private directories.
func copyProgram(dir, to string) (err error) {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, from); err != nil {
		return err
	}
	return file.Close()
}
