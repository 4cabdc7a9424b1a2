// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrVersion says that a record is of a schema that this program does not know.
var ErrVersion = errors.New("this synspy reads schema version 1")

// UnknownType is a record of a type that is not one of a trace. The schema only
// grows, so a reader may pass over it.
type UnknownType struct{ Header }

// dropPrefix is how the records that synspy writes begin.
var dropPrefix = []byte(`{"v":1,"type":"drop",`)

// Decode reads one line of a trace's JSON: it returns a *Ready, *Drop, *Suppressed,
// *Summary or *UnknownType. Members that it does not know are passed over.
// Errors wrap ErrVersion, or are those of encoding/json.
func Decode(line []byte) (any, error) {
	// Most records are drops: one look at their first bytes saves half the work.
	head := Head("drop")
	if !bytes.HasPrefix(line, dropPrefix) {
		head = Header{}
		if err := json.Unmarshal(line, &head); err != nil {
			return nil, err
		}
	}
	if head.V != SchemaVersion {
		return nil, fmt.Errorf("schema version %d: %w", head.V, ErrVersion)
	}
	var record any
	switch head.Type {
	case "ready":
		record = new(Ready)
	case "drop", "cookie":
		record = new(Drop)
	case "suppressed", "lost":
		record = new(Suppressed)
	case "summary":
		record = new(Summary)
	default:
		return &UnknownType{head}, nil
	}
	if err := json.Unmarshal(line, record); err != nil {
		return nil, err
	}
	return record, nil
}
