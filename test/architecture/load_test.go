// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is the type-checked source of packages of this module, without tests.
type source struct {
	dir      string // the module's
	fset     *token.FileSet
	info     *types.Info
	files    []*ast.File
	packages map[string]*types.Package // of the module: a field is the same wherever it is used
	others   types.Importer
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  *struct{ Path string }
}

// load reads the packages that patterns name, and those of this module that they import.
func load(t *testing.T, patterns ...string) *source {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps",
		"-json=ImportPath,Dir,Export,GoFiles,Module"}, patterns...)...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed // each after what it imports
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	p := &source{
		dir:      dir,
		fset:     token.NewFileSet(),
		packages: make(map[string]*types.Package),
		info: &types.Info{
			Types:      make(map[ast.Expr]types.TypeAndValue),
			Uses:       make(map[*ast.Ident]types.Object),
			Selections: make(map[*ast.SelectorExpr]*types.Selection),
		},
	}
	p.others = importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) {
		i := slices.IndexFunc(all, func(l listed) bool { return l.ImportPath == path })
		if i < 0 {
			return nil, fmt.Errorf("no package %s", path)
		}
		return os.Open(all[i].Export)
	})
	for _, l := range all {
		if l.Module == nil || l.Module.Path != module {
			continue
		}
		var files []*ast.File
		for _, name := range l.GoFiles {
			file, err := parser.ParseFile(p.fset, filepath.Join(l.Dir, name), nil,
				parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		config := types.Config{Importer: p}
		if p.packages[l.ImportPath], err = config.Check(l.ImportPath, p.fset, files,
			p.info); err != nil {
			t.Fatal(err)
		}
		p.files = append(p.files, files...)
	}
	return p
}

// Import is for the type checker.
func (p *source) Import(path string) (*types.Package, error) {
	if have := p.packages[path]; have != nil {
		return have, nil
	}
	return p.others.Import(path)
}
