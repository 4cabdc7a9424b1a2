// SPDX-License-Identifier: Apache-2.0

// Package schema tells tests whether records are what docs/schema says of them.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/synspy/synspy/docs/schema"
)

// published is the schema as its readers have it; members knows no other members than those that it
// names, and strict no other types and values either.
var (
	published = sync.OnceValues(compiled(false, false))
	members   = sync.OnceValues(compiled(true, false))
	strict    = sync.OnceValues(compiled(true, true))
)

func compiled(closed, exact bool) func() (*jsonschema.Schema, error) {
	return func() (*jsonschema.Schema, error) { return compile(closed, exact) }
}

// Check says what is wrong with a record: that it breaks the schema, or has something in it that
// the schema leaves out.
func Check(record []byte) error { return validate(record, strict) }

// CheckMembers does not ask whether the values of enumerations are those that the schema names.
func CheckMembers(record []byte) error { return validate(record, members) }

func validate(record []byte, by func() (*jsonschema.Schema, error)) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(record))
	if err != nil {
		return err
	}
	s, err := by()
	if err != nil {
		return err
	}
	if err := s.Validate(value); err != nil {
		return fmt.Errorf("%w\nin %s", err, record)
	}
	return nil
}

// CheckLines checks each line of records, and passes over empty ones. It returns how many there
// were.
func CheckLines(records []byte) (int, error) {
	n := 0
	var errs []error
	for line := range bytes.Lines(records) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			n++
			errs = append(errs, Check(line))
		}
	}
	return n, errors.Join(errs...)
}

func compile(closed, exact bool) (*jsonschema.Schema, error) {
	var value map[string]any
	if err := json.Unmarshal(schema.V1, &value); err != nil {
		return nil, err
	}
	if closed {
		for _, definition := range value["$defs"].(map[string]any) {
			definition.(map[string]any)["additionalProperties"] = false
		}
	}
	if exact {
		closeEnumerations(value)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("v1.json", value); err != nil {
		return nil, err
	}
	return compiler.Compile("v1.json")
}

// closeEnumerations takes out of a schema what leaves room for the values of later versions.
func closeEnumerations(value any) {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			closeEnumerations(v)
		}
	case map[string]any:
		for _, v := range value {
			closeEnumerations(v)
		}
		if known, ok := value["anyOf"].([]any); ok && len(known) == 2 && known[1] == true {
			value["anyOf"] = known[:1]
		}
	}
}
