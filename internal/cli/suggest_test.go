// SPDX-License-Identifier: Apache-2.0

package cli

import "testing"

func TestDidYouMean(t *testing.T) {
	names := []string{"accept_queue_full", "syn_queue_full", "netfilter", "checksum", "policy",
		"no_listener"}
	for name, want := range map[string]string{
		"acept_queue_full":  "did you mean accept_queue_full?",
		"accept-queue-full": "did you mean accept_queue_full?",
		"ACCEPT_QUEUE_FULL": "did you mean accept_queue_full?",
		"netfliter":         "did you mean netfilter?",
		"no_listner":        "did you mean no_listener?",
		"queue_full":        "did you mean accept_queue_full or syn_queue_full?",
		"check":             "did you mean checksum?",
		"nosuch":            "",
		"":                  "",
		"x":                 "",
	} {
		if got := DidYouMean(name, names); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
