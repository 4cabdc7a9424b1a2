// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
)

func TestProvenance(t *testing.T) {
	at := time.Date(2026, 11, 22, 23, 59, 50, 0, time.UTC)
	origin := event.Origin{Host: "web3",
		Program: event.Program{Version: "1.2", Command: "synspy diagnose --port 443"}}
	for _, tt := range []struct {
		name string
		d    event.Diagnosis
		want []string
	}{
		{"nothing known", event.Diagnosis{}, nil},
		{"watched", event.Diagnosis{Origin: origin, Kernel: "6.12.0",
			Time: event.Time{Time: at}, WindowS: 5},
			[]string{"host web3, Linux 6.12.0, from 2026-11-22 23:59:50 to 23:59:55 UTC", "synspy 1.2: synspy diagnose --port 443"}},
		{"over midnight", event.Diagnosis{Time: event.Time{Time: at}, WindowS: 30},
			[]string{"from 2026-11-22 23:59:50 to 2026-11-23 00:00:20 UTC"}},
		{"recorded",
			event.Diagnosis{Origin: origin,
				JudgedBy: &event.Program{Version: "1.3",
					Command: "synspy diagnose --read f"}},
			[]string{"host web3", "recorded by synspy 1.2: synspy diagnose --port 443",
				"judged by synspy 1.3: synspy diagnose --read f"}},
		{"recorded by one that did not say",
			event.Diagnosis{JudgedBy: &event.Program{Version: "1.3"}},
			[]string{"judged by synspy 1.3"}},
	} {
		if diff := cmp.Diff(tt.want, provenance(&tt.d, ClockUTC)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	d := incident()
	d.Origin, d.Kernel = origin, "6.12.0"
	var page strings.Builder
	if err := Report(&page, d); err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{
		"text": diagnosisText(t, d, Options{Time: ClockUTC}), "HTML": page.String()} {
		for _, want := range []string{"host web3, Linux 6.12.0, from 2026-11-22 04:55:01 to 04:55:31 UTC", "synspy 1.2: synspy diagnose --port 443"} {
			if !strings.Contains(text, want) {
				t.Errorf("the %s does not say %q", where, want)
			}
		}
	}
}

// TestVerdictLast: a verdict that has gone out of sight is said again, one that has not is not.
func TestVerdictLast(t *testing.T) {
	d := incident()
	d.Verdict = "all of it"
	lines := strings.Count(diagnosisText(t, d, Options{Height: 1 << 20}), "\n")
	for height, want := range map[int]int{0: 2, 24: 2, lines - 1: 2, lines: 1, lines + 1: 1} {
		text := diagnosisText(t, d, Options{Height: height})
		if n := strings.Count(text, "VERDICT: all of it\n"); n != want ||
			strings.HasSuffix(text, "\n\nVERDICT: all of it\n") != (want == 2) {
			t.Errorf("%d rows: the verdict of %d lines is there %d times, want %d",
				height, lines, n, want)
		}
	}
}
