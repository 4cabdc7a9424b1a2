// SPDX-License-Identifier: Apache-2.0

// Package worldtest makes worlds for tests.
package worldtest

import (
	"context"
	"testing"

	"github.com/synspy/synspy/internal/lab/world"
)

// New makes a world that ends with the test.
func New(t testing.TB) *world.World {
	t.Helper()
	w, err := world.New(context.Background()) // it outlasts the test's own, for what others clean up
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}
