// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"io"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"

	"github.com/synspy/synspy/internal/event"
)

// recordTypes are the types of records, each with the Go types that are written as it.
var recordTypes = []struct {
	name string
	of   []string
}{
	{"ready", []string{"event.Ready"}},
	{"drop", []string{"event.Drop"}},
	{"cookie", []string{"event.Drop"}},
	{"suppressed", []string{"event.Suppressed"}},
	{"lost", []string{"event.Suppressed"}},
	{"summary", []string{"event.Summary"}},
	{"diagnosis", []string{"event.Diagnosis"}},
	{"listener", []string{"event.Listing"}},
	{"counters", []string{"event.Counters"}},
	{"canary", []string{"event.Canary"}},
	{"canary_summary", []string{"event.CanarySummary"}},
	{"check", []string{"app.checkRow", "render.hookRecord", "render.blindRecord"}},
	{"scenario", []string{"judge.Verdict", "judge.IncidentVerdict"}},
	{"version", []string{"cli.versionRecord"}},
}

// recordPackages are those that these types, and the types in them, are of.
var recordPackages = []string{"event", "app", "judge", "cli", "render", "kernel", "probe/load"}

const internal = "github.com/synspy/synspy/internal/"

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.WriteString(name + ":" + value)
	}
	return []byte(b.String() + "}"), nil
}

// marshal is encoding/json without its HTML escapes.
func marshal(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// schema writes the JSON Schema of every record, from the Go types that the records are written
// with.
func schema(to io.Writer) error {
	s := schemaMaker{definitions: make(map[string]object)}
	if err := s.load(); err != nil {
		return err
	}
	var names []string
	var branches []any
	for _, record := range recordTypes {
		var refs []any
		for _, name := range record.of {
			ref, err := s.record(name)
			if err != nil {
				return err
			}
			refs = append(refs, ref)
		}
		then := refs[0]
		if len(refs) > 1 {
			then = object{{"anyOf", refs}}
		}
		isIt := object{{"properties", object{{"type", object{{"const", record.name}}}}}}
		branches = append(branches, object{{"if", isIt}, {"then", then}})
		names = append(names, record.name)
	}
	var definitions object
	for name, of := range s.definitions {
		definitions = append(definitions, member{name, of})
	}
	slices.SortFunc(definitions, func(a, b member) int {
		return strings.Compare(a.name, b.name)
	})

	text, err := marshal(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "Records of synspy, schema version 1"},
		{"description", "One line of what synspy writes with -o json. " +
			"Made by \"make generate\" from the Go types: do not edit. " +
			"Within version 1 types, members and names are only ever added: " +
			"pass over those that you do not know. What is unknown is absent."},
		{"type", "object"},
		{"required", []string{"v", "type"}},
		{"properties", object{
			{"v", object{{"const", event.SchemaVersion}}},
			{"type", open(names, "What kind of record it is.")},
		}},
		{"allOf", branches},
		{"$defs", definitions},
	})
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(text), "", "  "); err != nil {
		return err
	}
	indented.WriteByte('\n')
	_, err = to.Write(indented.Bytes())
	return err
}

// schemaMaker turns Go types into definitions of a schema.
type schemaMaker struct {
	packages    map[string]*packages.Package
	docs        map[string]string // of types, as package.Type, and of their fields
	definitions map[string]object
}

// load reads the packages that the records' types are of, with their comments.
func (s *schemaMaker) load() error {
	var patterns []string
	for _, name := range recordPackages {
		patterns = append(patterns, internal+name)
	}
	const mode = packages.NeedName | packages.NeedTypes |
		packages.NeedSyntax | packages.NeedImports
	loaded, err := packages.Load(&packages.Config{Mode: mode}, patterns...)
	if err != nil {
		return fmt.Errorf("load packages: %w", err)
	}
	s.packages, s.docs = make(map[string]*packages.Package), make(map[string]string)
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return fmt.Errorf("load %s: %w", p.PkgPath, p.Errors[0])
		}
		s.packages[p.Name] = p
		for _, file := range p.Syntax {
			s.read(p.Name, file)
		}
	}
	return nil
}

// read notes the comments of a file's structs.
func (s *schemaMaker) read(pkg string, file *ast.File) {
	for _, d := range file.Decls {
		declaration, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range declaration.Specs {
			of, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			name := pkg + "." + of.Name.Name
			s.docs[name] = oneLine(declaration.Doc.Text() + of.Doc.Text())
			fields, ok := of.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range fields.Fields.List {
				for _, of := range field.Names {
					doc := field.Doc.Text() + field.Comment.Text()
					s.docs[name+"."+of.Name] = oneLine(doc)
				}
			}
		}
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// record is the schema of a type that is named package.Type.
func (s *schemaMaker) record(name string) (object, error) {
	pkg, of, _ := strings.Cut(name, ".")
	found := s.packages[pkg].Types.Scope().Lookup(of)
	if found == nil {
		return nil, fmt.Errorf("no type %s: see recordTypes in test/docs/schema.go", name)
	}
	return s.of(found.Type())
}

// of is the schema of a Go type as encoding/json writes it.
func (s *schemaMaker) of(t types.Type) (object, error) {
	switch t := types.Unalias(t).(type) {
	case *types.Pointer:
		return s.of(t.Elem())
	case *types.Named:
		return s.named(t)
	case *types.Slice:
		items, err := s.of(t.Elem())
		return object{{"type", "array"}, {"items", items}}, err
	case *types.Map:
		values, err := s.of(t.Elem())
		return object{{"type", "object"}, {"additionalProperties", values}}, err
	case *types.Interface:
		return object{{"type", []string{"number", "string", "boolean"}}}, nil
	case *types.Basic:
		switch info := t.Info(); {
		case info&types.IsUnsigned != 0:
			return object{{"type", "integer"}, {"minimum", 0}}, nil
		case info&types.IsInteger != 0:
			return object{{"type", "integer"}}, nil
		case info&types.IsFloat != 0:
			return object{{"type", "number"}}, nil
		case info&types.IsBoolean != 0:
			return object{{"type", "boolean"}}, nil
		case info&types.IsString != 0:
			return object{{"type", "string"}}, nil
		}
	}
	return nil, fmt.Errorf("no schema for the Go type %v", t)
}

func (s *schemaMaker) named(t *types.Named) (object, error) {
	name := t.Obj().Pkg().Name() + "." + t.Obj().Name()
	switch name {
	case "netip.Addr":
		return object{{"type", "string"}, {"description", "An IPv4 or IPv6 address."}}, nil
	case "event.Time":
		return object{{"type", "string"}, {"format", "date-time"},
			{"pattern", `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$`}}, nil
	case "event.Cause":
		return open(names(event.NumCauses), s.docs[name]), nil
	case "event.Stage":
		return open(names(event.NumStages), s.docs[name]), nil
	case "event.Action":
		return open(names(event.NumActions), s.docs[name]), nil
	case "event.Proof":
		return open(names(event.NumProofs), s.docs[name]), nil
	case "event.LedgerRow": // its MarshalJSON leaves out one member: see below
	default:
		for method := range t.Methods() {
			switch method.Name() {
			case "MarshalJSON", "MarshalText", "AppendText":
				return nil, fmt.Errorf("%s writes itself: say here as what", name)
			}
		}
	}
	fields, ok := t.Underlying().(*types.Struct)
	if !ok {
		basic, ok := t.Underlying().(*types.Basic)
		if ok && basic.Info()&types.IsString != 0 {
			return open(constants(t), s.docs[name]), nil
		}
		return s.of(t.Underlying())
	}
	ref := object{{"$ref", "#/$defs/" + t.Obj().Name()}}
	if _, known := s.definitions[t.Obj().Name()]; known {
		return ref, nil
	}
	s.definitions[t.Obj().Name()] = nil // it may have itself in it
	var properties object
	var required []string
	if err := s.fields(name, fields, &properties, &required); err != nil {
		return nil, err
	}
	if name == "event.LedgerRow" {
		required = slices.DeleteFunc(required, func(n string) bool { return n == "kernel" })
	}
	definition := object{{"type", "object"}}
	if doc := s.docs[name]; doc != "" {
		definition = append(definition, member{"description", doc})
	}
	definition = append(definition, member{"properties", properties})
	if len(required) > 0 {
		definition = append(definition, member{"required", required})
	}
	s.definitions[t.Obj().Name()] = definition
	return ref, nil
}

// fields adds what JSON has of a struct, and of the structs embedded in it.
func (s *schemaMaker) fields(
	name string, of *types.Struct, properties *object, required *[]string,
) error {
	for i := range of.NumFields() {
		field := of.Field(i)
		tag := reflect.StructTag(of.Tag(i)).Get("json")
		key, options, _ := strings.Cut(tag, ",")
		embedded, ok := field.Type().(*types.Named)
		if ok && field.Embedded() && key == "" {
			within := embedded.Obj().Pkg().Name() + "." + embedded.Obj().Name()
			its := embedded.Underlying().(*types.Struct)
			if err := s.fields(within, its, properties, required); err != nil {
				return err
			}
			continue
		}
		if !field.Exported() || tag == "-" {
			continue
		}
		if key == "" {
			return fmt.Errorf("%s.%s has no name in JSON", name, field.Name())
		}
		property, err := s.of(field.Type())
		if err != nil {
			return fmt.Errorf("%s.%s: %w", name, field.Name(), err)
		}
		if strings.Contains(options, "string") {
			property = object{{"type", "string"}, {"pattern", `^\d+$`}}
		}
		if doc := s.docs[name+"."+field.Name()]; doc != "" {
			property = property.without("description")
			property = append(property, member{"description", doc})
		}
		*properties = append(*properties, member{key, property})
		if !strings.Contains(options, "omit") {
			*required = append(*required, key)
			if _, pointer := field.Type().(*types.Pointer); pointer {
				return fmt.Errorf("%s.%s: null is not absent", name, key)
			}
		}
	}
	return nil
}

func (o object) without(name string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return m.name == name })
}

// open is the schema of a string with known values to which later versions may add.
func open(values []string, doc string) object {
	if len(values) == 0 {
		return object{{"type", "string"}}
	}
	schema := object{{"type", "string"}, {"anyOf", []any{object{{"enum", values}}, true}}}
	if doc != "" {
		schema = append(schema, member{"description", doc})
	}
	return schema
}

// names are those of an enumeration's values; zero is unknown, and never written.
func names[T interface {
	~uint8 | ~uint16 | ~uint32 | ~int
	fmt.Stringer
}](end T) []string {
	var names []string
	for v := T(1); v < end; v++ {
		names = append(names, v.String())
	}
	return names
}

// constants are the values of the constants of a type in its package, in the order of their names.
func constants(t *types.Named) []string {
	var values []string
	scope := t.Obj().Pkg().Scope()
	for _, name := range scope.Names() {
		if c, ok := scope.Lookup(name).(*types.Const); ok && types.Identical(c.Type(), t) {
			values = append(values, constant.StringVal(c.Val()))
		}
	}
	return values
}
