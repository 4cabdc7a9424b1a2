// SPDX-License-Identifier: Apache-2.0

// Package architecture tests the shape of the source, and needs nothing but go and git: which
// package may import which, how many files a package has and how they use each other, how wide
// lines are, what sources and commits say at their top. make lint runs it.
package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/synspy/synspy"
	ebpf   = "github.com/cilium/ebpf"
	root   = "../.." // where go.mod is
)

// mayImport lists, for each part of the house, the other parts it may import. A part is a folder of
// internal with all its subfolders, or cmd. Everything else in the module (test, deploy, docs) is
// nobody's to import and free in what it imports.
var mayImport = map[string][]string{
	"cmd": {"app", "trace", "collect", "listing", "counters", "recording", "judge", "session",
		"cli", "event"},
	"app": {"trace", "collect", "listing", "counters", "recording", "judge", "session", "cli",
		"probe",
		"owner", "thread", "symbol", "diagnose", "render", "metrics", "lab", "canary",
		"kernel", "bpf",
		"event"},
	"judge": {"collect", "trace", "session", "cli", "probe", "owner", "diagnose", "render",
		"lab",
		"kernel", "event"},
	"collect": {"trace", "session", "cli", "probe", "owner", "thread", "symbol", "diagnose",
		"render",
		"kernel", "event"},
	"listing": {"counters", "session", "cli", "probe", "owner", "thread", "diagnose", "render",
		"kernel",
		"event"},
	"trace":     {"recording", "session", "cli", "probe", "owner", "render", "kernel", "event"},
	"counters":  {"session", "cli", "owner", "render", "kernel", "event"},
	"recording": {"session", "cli", "probe", "owner", "render", "kernel", "event"},
	"session": {"cli", "probe", "owner", "thread", "diagnose", "render", "kernel", "bpf",
		"event"},
	"cli":      {"probe", "lab", "render", "kernel", "event"},
	"probe":    {"kernel", "bpf", "event"},
	"owner":    {"kernel", "event"},
	"thread":   {"kernel", "event"},
	"symbol":   {"kernel", "event"},
	"diagnose": {"kernel", "event"},
	"render":   {"kernel", "event"},
	"metrics":  {"kernel", "event"},
	"lab":      {"kernel", "event"},
	"canary":   {"event"},
	"kernel":   {"event"},
	"bpf":      {"event"},
	"event":    {},
}

// ebpfUsers are the only parts that import cilium/ebpf. The lab makes refusals of its own with it:
// those of security modules, of cgroups' programs and of XDP.
var ebpfUsers = []string{"probe", "bpf", "lab"}

// listedPackage is what is read of a package in the output of go list -json.
type listedPackage struct {
	ImportPath string
	Imports    []string // without those of its tests
}

func TestImportsRunOneWay(t *testing.T) {
	packages, err := listPackages()
	if err != nil {
		t.Fatal(err)
	}
	parts := 0
	for _, p := range packages {
		if partOf(p.ImportPath) != "" {
			parts++
		}
		for _, violation := range violations(p) {
			t.Error(violation)
		}
	}
	if parts == 0 {
		t.Errorf("none of the %d packages go list found is below cmd or internal: is the module still called %s?",
			len(packages), module)
	}
}

func TestViolations(t *testing.T) {
	for _, tt := range []struct {
		name     string
		from, to string
		want     string // "" where the import is allowed
	}{
		{"cmd calls app", "cmd/synspy", "internal/app", ""},
		{"app wires probe", "internal/app", "internal/probe", ""},
		{"a part imports itself", "internal/render/html", "internal/render", ""},
		{"tests are free", "test/vm", "internal/probe", ""},
		{"probe loads BPF", "internal/probe", ebpf + "/link", ""},
		{"lab refuses by BPF", "internal/lab", ebpf, ""},
		{"event uses std", "internal/event", "encoding/json", ""},
		{"cmd skips app", "cmd/synspy", "internal/probe", "cmd must not import probe"},
		{"middle to middle", "internal/render", "internal/diagnose",
			"render must not import diagnose"},
		{"subfolders count", "internal/owner/cri", "internal/probe/plan",
			"owner must not import probe"},
		{"upwards", "internal/kernel", "internal/probe", "kernel must not import probe"},
		{"diagnose sees BPF", "internal/diagnose", "internal/bpf",
			"diagnose must not import bpf"},
		{"ebpf elsewhere", "internal/kernel", ebpf + "/btf",
			"only probe, bpf, lab import " + ebpf},
		{"event uses a library", "internal/event", "golang.org/x/sys/unix",
			"event imports only the standard library"},
		{"event uses the house", "internal/event", "internal/kernel",
			"event must not import kernel"},
		{"new part as importer", "internal/misc", "fmt", "misc is no part of the house"},
		{"new part as imported", "internal/app", "internal/misc",
			"app must not import misc"},
		{"test code in the product", "internal/app", "test/vm", "test code"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := tt.to
			for _, prefix := range []string{"internal/", "cmd/", "test/"} {
				if strings.HasPrefix(to, prefix) {
					to = module + "/" + to
				}
			}
			got := violations(listedPackage{ImportPath: module + "/" + tt.from,
				Imports: []string{to}})
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("allowed import reported: %q", got)
			case tt.want != "" && len(got) != 1:
				t.Errorf("got %q, want one violation with %q", got, tt.want)
			case tt.want != "" && !strings.Contains(got[0], tt.want):
				t.Errorf("got %q, want it to contain %q", got[0], tt.want)
			}
		})
	}
}

// violations says what is wrong with a package's imports, one sentence each.
func violations(p listedPackage) []string {
	from := partOf(p.ImportPath)
	if from == "" {
		return nil
	}
	allowed, known := mayImport[from]
	if !known {
		return []string{fmt.Sprintf("%s: %s is no part of the house: give it a place in mayImport (test/architecture)",
			p.ImportPath, from)}
	}
	var out []string
	for _, imported := range p.Imports {
		to := partOf(imported)
		switch {
		case to == from || to != "" && slices.Contains(allowed, to):
		case to != "":
			out = append(out, fmt.Sprintf("%s imports %s: %s must not import %s",
				p.ImportPath, imported, from, to))
		case within(imported, module):
			out = append(out,
				fmt.Sprintf("%s imports %s: test code stays out of the product",
					p.ImportPath, imported))
		case from == "event" && !isStandard(imported):
			out = append(out,
				fmt.Sprintf("%s imports %s: event imports only the standard library",
					p.ImportPath, imported))
		case within(imported, ebpf) && !slices.Contains(ebpfUsers, from):
			out = append(out, fmt.Sprintf("%s imports %s: only %s import %s",
				p.ImportPath, imported, strings.Join(ebpfUsers, ", "), ebpf))
		}
	}
	return out
}

// partOf names the part of the house that an import path belongs to: "cmd", a folder of internal,
// or "" for anything else.
func partOf(importPath string) string {
	rest, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	first, rest, _ := strings.Cut(rest, "/")
	switch first {
	case "cmd":
		return first
	case "internal":
		part, _, _ := strings.Cut(rest, "/")
		return part
	}
	return ""
}

func within(importPath, root string) bool {
	return importPath == root || strings.HasPrefix(importPath, root+"/")
}

// isStandard uses go's own rule: only module paths have a dot in their first element.
func isStandard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// listPackages asks go for every package of this module. A package that does not compile is listed
// all the same (-e): the compiler reports it better than this test would.
func listPackages() ([]listedPackage, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	cmd.Dir = root
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var packages []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode go list: %w", err)
		}
		packages = append(packages, p)
	}
}
