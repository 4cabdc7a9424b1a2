// SPDX-License-Identifier: Apache-2.0

package event

import (
	"slices"
	"strings"
	"testing"
)

// TestFindings holds the table to a form, and to the names that DESIGN fixes.
func TestFindings(t *testing.T) {
	fixed := strings.Fields(`accept_loop_blocked accept_loop_busy cpu_throttled cpu_starved process_stopped no_acceptor
		accept_rate_exceeded connection_burst backlog_too_small backlog_capped reuseport_imbalance syn_queue_pressure
		syncookies_disabled abort_on_overflow client_gave_up return_path_lost dropped_before_listener no_listener
		listener_restarted no_syn_arrived healthy`)
	var names []string
	for _, f := range Findings() {
		if slices.Contains(names, string(f.ID)) {
			t.Errorf("%s is there twice", f.ID)
		}
		names = append(names, string(f.ID))
		if got, ok := FindingOf(f.ID); !ok || got.Title != f.Title {
			t.Errorf("%s is not found", f.ID)
		}
		for _, text := range append([]string{f.Title, f.Means, f.Shown}, f.Do...) {
			if text == "" || strings.HasSuffix(text, ".") ||
				strings.TrimSpace(text) != text {
				t.Errorf("%s: %q", f.ID, text)
			}
		}
		if !slices.Contains([]string{"application", "platform", "node", "network",
			"client"}, f.Owner) || len(f.Do) == 0 {
			t.Errorf("%s: owner %q, %d things to do", f.ID, f.Owner, len(f.Do))
		}
	}
	for _, name := range fixed {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if _, ok := FindingOf("nosuch"); ok {
		t.Error("nosuch is found")
	}
}
