// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// TestAcceptFailsSays: what is wanting stands in the verdict and in the evidence with its numbers,
// and the advice is about it.
func TestAcceptFailsSays(t *testing.T) {
	asleep := thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll))
	for _, tt := range []struct {
		name, errno string
		calls, full uint64
		confidence  event.Confidence
		owner       string
		verdict     []string
		fix         string
	}{
		{"EMFILE", "EMFILE", 3, 8, event.ConfidenceProven, "application", []string{"EMFILE",
			"1023 of the 1024",
			"RLIMIT_NOFILE"}, "set RLIMIT_NOFILE to 65536 (now 1024)"},
		{"a full table", "", 0, 8, event.ConfidenceLikely, "application", []string{"EMFILE",
			"1023 of the 1024"}, "set RLIMIT_NOFILE"},
		{"ENFILE", "ENFILE", 3, 0, event.ConfidenceProven, "node", []string{"ENFILE",
			"4999 of the 5000", "fs.file-max"}, "set fs.file-max to 65536 (now 5000)"},
		{"ENOMEM", "ENOMEM", 3, 0, event.ConfidenceProven, "node", []string{"ENOMEM",
			"no memory"}, "memory.max"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := evidenceOf(failing(asleep, tt.errno, tt.calls, 8, tt.full))
			e.Files = evidence.Files{Open: 4999, Max: 5000}
			d := Diagnose(e)
			f := d.Findings[0]
			if f.Confidence != tt.confidence || f.Owner != tt.owner {
				t.Errorf("%s for %s", f.Confidence, f.Owner)
			}
			for _, words := range tt.verdict {
				if !strings.Contains(d.Verdict, words) || !strings.Contains(f.Title,
					words) {
					t.Errorf("%q is not in %q, or not in %q", words, d.Verdict,
						f.Title)
				}
			}
			if fixes := strings.Join(f.Fix, "; "); !strings.Contains(fixes, tt.fix) ||
				strings.Contains(fixes, "clock_nanosleep") {
				t.Errorf("advice: %s", fixes)
			}
		})
	}
}

// TestDescriptorsBelowLimit: a limit that was lowered leaves descriptors above it open, which are
// no part of what is counted against it.
func TestDescriptorsBelowLimit(t *testing.T) {
	l := failing(thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll)),
		"EMFILE", 3, 8, 8)
	l.Descriptors[0].Open, l.Descriptors[0].Limit = 19, 18
	for _, ev := range Diagnose(evidenceOf(l)).Findings[0].Evidence {
		if strings.HasPrefix(ev.What, "open descriptors") && (ev.Value != uint64(18) ||
			!strings.HasSuffix(ev.What, "below its limit")) {
			t.Errorf("%s: %v", ev.What, ev.Value)
		}
	}
}

// TestBlockedAdvice: what a loop waits for with others of its program is not to be taken off it,
// and workers that wait in different calls are told with all of them.
func TestBlockedAdvice(t *testing.T) {
	futex := evidence.Sample{State: "S", Syscall: "futex", Kernel: []string{"futex_wait"}}
	for _, tt := range []struct {
		name      string
		l         evidence.Listener
		has, lack string
	}{
		{"a sleep", thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll)),
			"take clock_nanosleep off", "has to wake it"},
		{"a semaphore", thread(blockedWindow(16), true, between(2000, 7000, futex, inPoll)),
			"a limit of connections (Tomcat's maxConnections)",
			"off the accepting thread"},
		{"both", prefork(elsewhereInPoll, event.RoleHolder, inSleep, futex, inSleep),
			"clock_nanosleep and futex", "take clock_nanosleep and futex"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Diagnose(evidenceOf(tt.l)).Findings[0]
			text := fmt.Sprint(f.Title, f.Fix)
			if f.ID != event.FindingAcceptLoopBlocked || !strings.Contains(text,
				tt.has) || strings.Contains(text, tt.lack) {
				t.Errorf("%s: %s", f.ID, text)
			}
		})
	}
}

// TestManyConcerned: however many processes a finding is about, the sentence has their number.
func TestManyConcerned(t *testing.T) {
	workers := make([]evidence.Sample, 40)
	for i := range workers {
		workers[i] = inSleep
	}
	f := Diagnose(evidenceOf(prefork(elsewhereInPoll, event.RoleAcceptor,
		workers...))).Findings[0]
	if !strings.Contains(f.Title, "and 39 more") || len(f.Processes) != rules.MaxConcerned ||
		!strings.Contains(fmt.Sprint(f.Evidence), "processes that it is about 40") {
		t.Errorf("%d processes: %s, %v", len(f.Processes), f.Title, f.Evidence)
	}
}
