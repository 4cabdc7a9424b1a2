// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"2G": 2 << 30, "512M": 512 << 20,
		"1536": 1536 << 20, "64k": 64 << 10} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "G", "-1G", "two"} {
		if _, err := parseSize(text); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestAvailableMemory(t *testing.T) {
	got, err := availableMemory([]byte("MemTotal: 100 kB\nMemAvailable:    42 kB\n"))
	if err != nil || got != 42<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := availableMemory([]byte("MemTotal: 100 kB\n")); err == nil {
		t.Error("no MemAvailable: got no error")
	}
}

func TestMachinesAtATime(t *testing.T) {
	for _, memory := range []string{"1M", "900G"} {
		got, err := machinesAtATime(memory)
		if err != nil || got < 1 || got > runtime.NumCPU() {
			t.Errorf("%s: got %d, %v", memory, got, err)
		}
	}
}

func TestProgramFor(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := programFor(self, runtime.GOARCH); err != nil || got != self {
		t.Errorf("own architecture: got %q, %v", got, err)
	}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	// Enough of an ELF file to tell its architecture.
	header := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	header[16], header[18], header[20], header[52], header[58] = 2, byte(elfMachines[other]), 1,
		64, 64
	dir := t.TempDir()
	program := filepath.Join(dir, "synspy")
	own := append([]byte(nil), header...)
	own[18] = byte(elfMachines[runtime.GOARCH])
	if err := os.WriteFile(program, own, 0o755); err != nil {
		t.Fatal(err)
	}
	var hint *hintError
	if _, err := programFor(program, other); !errors.As(err, &hint) {
		t.Errorf("not built: got %v", err)
	}
	want := filepath.Join(dir, other, "synspy")
	if err := os.Mkdir(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, header, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := programFor(program, other); err != nil || got != want {
		t.Errorf("built: got %q, %v", got, err)
	}
}
