// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/test/schema"
)

// TestSchema: whatever a record has in it, the published schema describes it.
func TestSchema(t *testing.T) {
	json := Options{Format: FormatJSON}
	for seed := range uint64(200) {
		var out bytes.Buffer
		s := NewStream(&out, json)
		c := NewCanary(&out, json, nil)
		for _, err := range []error{
			s.Ready(*headed[event.Ready](seed, "ready")),
			s.Drop(headed[event.Drop](seed, "drop")),
			s.Suppressed(*headed[event.Suppressed](seed, "lost")),
			s.Summary(*headed[event.Summary](seed, "summary")),
			s.Flush(),
			Diagnosis(&out, *headed[event.Diagnosis](seed, "diagnosis"), json),
			CountersTable(&out, one(*headed[event.Counters](seed, "counters")), json),
			writeListings(&out, one(*headed[event.Listing](seed, "listener")), json),
			c.Probe(*headed[event.Canary](seed, "canary")),
			c.Summaries(one(*headed[event.CanarySummary](seed, "canary_summary"))),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := bytes.Count(out.Bytes(), []byte("\n")); n != 9 {
			t.Fatalf("%d records", n)
		}
		for line := range bytes.Lines(out.Bytes()) {
			if err := schema.CheckMembers(line); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

func one[T any](of T) []T { return []T{of} }

// headed is a random record of a type.
func headed[T any](seed uint64, kind string) *T {
	record := random[T](seed)
	reflect.ValueOf(record).Elem().FieldByName("Header").Set(reflect.ValueOf(event.Head(kind)))
	return record
}
