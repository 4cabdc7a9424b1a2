// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"go/ast"
	"go/token"
	"go/types"
	"testing"
)

// TestEvidenceIsCollected: a field of evidence.Evidence, or of anything in it, that only tests
// write is a rule that never speaks, or one that speaks as if nothing had been seen.
func TestEvidenceIsCollected(t *testing.T) {
	p := load(t, "./cmd/...")
	written := p.written()
	evidence := p.packages[module+"/internal/diagnose/evidence"].Scope().Lookup("Evidence")
	fields := p.fields(evidence.Type())
	if len(fields) < 100 {
		t.Errorf("only %d fields found", len(fields))
	}
	for name, field := range fields {
		if !written[field] {
			t.Errorf("nobody writes %s but tests", name)
		}
	}
}

// fields lists the exported fields of the module's structs that are to be found in a type, by name.
func (p *source) fields(of types.Type) map[string]*types.Var {
	found, seen := make(map[string]*types.Var), make(map[types.Type]bool)
	var walk func(types.Type)
	walk = func(t types.Type) {
		if seen[t] {
			return
		}
		seen[t] = true
		switch t := t.(type) {
		case *types.Pointer:
			walk(t.Elem())
		case *types.Slice:
			walk(t.Elem())
		case *types.Array:
			walk(t.Elem())
		case *types.Map:
			walk(t.Elem())
		case *types.Named:
			s, ok := t.Underlying().(*types.Struct)
			if !ok || t.Obj().Pkg() == nil || p.packages[t.Obj().Pkg().Path()] == nil {
				return
			}
			for i := range s.NumFields() {
				if f := s.Field(i); f.Exported() {
					found[t.Obj().Pkg().Name()+"."+t.Obj().Name()+"."+f.Name()] = f
					walk(f.Type())
				}
			}
		}
	}
	walk(of)
	return found
}

// written are the fields that something in the product gives a value.
func (p *source) written() map[types.Object]bool {
	written := make(map[types.Object]bool)
	for _, file := range p.files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, to := range n.Lhs {
					p.target(to, written)
				}
			case *ast.IncDecStmt:
				p.target(n.X, written)
			case *ast.RangeStmt:
				p.target(n.Key, written)
				p.target(n.Value, written)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					p.target(n.X, written)
				}
			case *ast.CompositeLit:
				p.literal(n, written)
			}
			return true
		})
	}
	return written
}

// target marks a field that is assigned to, and those of the structs that it is a part of.
func (p *source) target(to ast.Expr, written map[types.Object]bool) {
	for {
		switch e := to.(type) {
		case *ast.ParenExpr:
			to = e.X
		case *ast.IndexExpr: // of an array in a struct, or of a map or slice that was made elsewhere
			if _, array := p.info.Types[e.X].Type.Underlying().(*types.Array); !array {
				return
			}
			to = e.X
		case *ast.SelectorExpr:
			if s := p.info.Selections[e]; s != nil && s.Kind() == types.FieldVal {
				written[s.Obj()] = true
			}
			if _, pointer := p.info.Types[e.X].Type.(*types.Pointer); pointer {
				return
			}
			to = e.X
		default:
			return
		}
	}
}

// literal marks the fields that a literal of a struct names, or has.
func (p *source) literal(lit *ast.CompositeLit, written map[types.Object]bool) {
	t := p.info.Types[lit].Type
	if pointer, ok := t.Underlying().(*types.Pointer); ok { // an element of a slice of pointers
		t = pointer.Elem()
	}
	s, ok := t.Underlying().(*types.Struct)
	if !ok {
		return
	}
	for i, e := range lit.Elts {
		if kv, keyed := e.(*ast.KeyValueExpr); !keyed {
			written[s.Field(i)] = true
		} else if key, ok := kv.Key.(*ast.Ident); ok {
			written[p.info.Uses[key]] = true
		}
	}
}
