// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestObjectsAreAsked: the maps of every object that is compiled are among those that say what
// happens when they are full.
func TestObjectsAreAsked(t *testing.T) {
	asked, err := os.ReadFile("../../internal/probe/load/tables_test.go")
	if err != nil {
		t.Fatal(err)
	}
	bindings, err := filepath.Glob("../../internal/bpf/*_x86_bpfel.go")
	if err != nil || len(bindings) == 0 {
		t.Fatalf("no bindings: %v", err)
	}
	load := regexp.MustCompile(`func (Load\w+)\(\) \(\*ebpf\.CollectionSpec`)
	for _, file := range bindings {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := load.FindSubmatch(source)
		if name == nil {
			t.Errorf("%s has no function that loads its object", file)
		} else if !strings.Contains(string(asked), "bpf."+string(name[1])) {
			t.Errorf("objects() in internal/probe/load/tables_test.go leaves out bpf.%s", name[1])
		}
	}
}
