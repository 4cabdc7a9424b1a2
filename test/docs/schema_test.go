// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	docs "github.com/synspy/synspy/docs/schema"
)

// TestSchema: the schema that is published is the one that the Go types make.
func TestSchema(t *testing.T) {
	var made bytes.Buffer
	if err := schema(&made); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made.Bytes(), docs.V1) {
		t.Error("docs/schema/v1.json is not what the records' Go types say: " +
			"run make generate and commit the result")
	}
}
