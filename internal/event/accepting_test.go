// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"testing"
)

// TestWaitBuckets: empty buckets are left out, and the last one has no end.
func TestWaitBuckets(t *testing.T) {
	text, err := json.Marshal(WaitBuckets([]uint64{1, 0, 3, 4}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(text), `[{"below_us":1,"count":1},{"below_us":4,"count":3},{"count":4}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := WaitBuckets(make([]uint64, 4)); got != nil {
		t.Errorf("got %v of nothing", got)
	}
}
