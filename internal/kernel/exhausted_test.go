// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExhausted(t *testing.T) {
	for err, want := range map[error]string{unix.EMFILE: "RLIMIT_NOFILE",
		unix.ENFILE: "fs.file-max", unix.ENOMEM: "memory"} {
		if got := Exhausted(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %s in it", err, got, want)
		}
	}
	for _, err := range []error{nil, unix.EPERM, errors.New("other")} {
		if got := Exhausted(err); got != "" {
			t.Errorf("%v takes %q", err, got)
		}
	}
	if spare := SpareFiles(); spare == 0 {
		t.Error("no more files may be opened")
	}
}

// TestMoreMemory names the cgroup of least memory, v2's and v1's.
func TestMoreMemory(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a/memory.max": "max\n", "a/b/memory.max": "33554432\n",
		"a/b/c/memory.max": "67108864\n", "memory.max": "max\n",
		"memory/pods/memory.limit_in_bytes": "16777216\n",
		"memory/memory.limit_in_bytes":      "9223372036854771712\n",
		"v2":                                "0::/a/b/c\n", "v1": "4:cpu:/\n3:memory,hugetlb:/pods/x\n",
		"none": "4:cpu:/x\n0::/a\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{"v2": "32 MiB, in " + dir + "/a/b/memory.max",
		"v1":   "16 MiB, in " + dir + "/memory/pods/memory.limit_in_bytes",
		"none": "than this machine has", "nothing": "more memory"} {
		if got := moreMemory(filepath.Join(dir, file), dir); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", file, got, want)
		}
	}
}

func TestConfidential(t *testing.T) {
	for text, want := range map[string]bool{"none integrity [confidentiality]\n": true,
		"none [integrity] confidentiality\n": false,
		"[none] integrity confidentiality\n": false, "": false} {
		if got := confidential(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
