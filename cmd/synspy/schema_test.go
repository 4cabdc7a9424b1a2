// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"github.com/synspy/synspy/test/schema"
)

// TestSchema: records that no other test reads are what the schema says, too.
func TestSchema(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"version", "-o", "json"}, plainEnv(&stdout, &stderr))
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if n, err := schema.CheckLines(stdout.Bytes()); n != 1 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
}
