// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The licences of source files: bpf is loaded into the kernel, which lets only GPL-compatible
// programs call some helpers.
const (
	licenceOfRest = "SPDX-License-Identifier: Apache-2.0"
	licenceOfBPF  = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"
)

// sources are the kinds of file that name their licence, by suffix or name. CSS does not: it goes
// whole into every report.
var sources = []string{".go", ".c", ".h", ".sh", ".gohtml", ".yml", "Makefile", "Vagrantfile"}

func TestSourcesNameTheirLicence(t *testing.T) {
	seen := 0
	for _, name := range trackedFiles(t) {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed, not yet committed
		} else if err != nil {
			t.Fatal(err)
		}
		if !isSource(name, content) {
			continue
		}
		seen++
		want := licenceOfRest
		if strings.HasPrefix(name, "bpf/") {
			want = licenceOfBPF
		}
		if !namesLicence(content, want) {
			t.Errorf("%s: among its first lines there is no comment %q: add it", name,
				want)
		}
	}
	if seen < 100 {
		t.Errorf("only %d source files found", seen)
	}
}

func TestNamesLicence(t *testing.T) {
	for _, tt := range []struct {
		content string
		want    bool
	}{
		{"// " + licenceOfRest + "\n\npackage a\n", true},
		{"#!/bin/sh\n# " + licenceOfRest + "\n", true},
		{"/* " + licenceOfRest + " */\n", true},
		{"package a\n", false},
		{"// " + licenceOfRest + "-only\n", false},
		{"package a\n\nfunc a() {\n\t// " + licenceOfRest + "\n}\n", false},
	} {
		if got := namesLicence([]byte(tt.content), licenceOfRest); got != tt.want {
			t.Errorf("%q: got %t", tt.content, got)
		}
	}
}

// namesLicence reports whether one of the first two lines is a comment that has the licence's line,
// and nothing behind it.
func namesLicence(content []byte, licence string) bool {
	for i, line := range bytes.SplitN(content, []byte("\n"), 3) {
		before, after, found := strings.Cut(string(line), licence)
		if i < 2 && found && strings.Trim(before, "/*#{- ") == "" &&
			strings.Trim(after, "/*}- ") == "" {
			return true
		}
	}
	return false
}

// isSource reports whether a file is written here, by hand: neither taken over nor generated.
func isSource(name string, content []byte) bool {
	if strings.HasPrefix(name, "bpf/headers/") || generated(content) {
		return false
	}
	return bytes.HasPrefix(content, []byte("#!")) ||
		slices.ContainsFunc(sources, func(s string) bool {
			return strings.HasSuffix(name, s)
		})
}

// generated reports whether a file says that it is, in the words that go itself looks for.
func generated(content []byte) bool {
	first, _, _ := bytes.Cut(content, []byte("\n"))
	return bytes.HasPrefix(first, []byte("// Code generated ")) &&
		bytes.HasSuffix(first, []byte(" DO NOT EDIT."))
}

// trackedFiles lists the files that git knows of, and those that it does not ignore.
func trackedFiles(t *testing.T) []string {
	t.Helper()
	out := git(t, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	return strings.FieldsFunc(out, func(r rune) bool { return r == 0 })
}

// git asks git of this checkout, whoever it belongs to. A test is skipped where the files are not
// in one, as when they came in an archive.
func git(t *testing.T, arguments ...string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, ".git")); os.IsNotExist(err) {
		t.Skip("no git checkout")
	}
	cmd := exec.Command("git", append([]string{"-c", "safe.directory=*"}, arguments...)...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v", strings.Join(arguments, " "), err)
	}
	return string(out)
}
