// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// without is the window as it shows where a kind of evidence was refused.
func without(e *evidence.Evidence, n evidence.Need, by ...string) *evidence.Evidence {
	for i := range e.Listeners {
		e.Listeners[i].Missing = append(e.Listeners[i].Missing, evidence.Gap{Need: n,
			Why: "permission denied", By: by})
	}
	return e
}

// unseen is a thread of which the state is all that was to be had.
func unseen(smp evidence.Sample) evidence.Sample {
	smp.Syscall, smp.Kernel, smp.User = "", nil, nil
	return smp
}

// TestRefused shows windows of which a part was refused: what is wrong may be told, and what was
// not to be seen is.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		e       *evidence.Evidence
		want    string // the first finding
		verdict []string
	}{
		{"the loop sleeps, and its calls are refused",
			without(evidenceOf(thread(blockedWindow(16), false,
				always(unseen(inSleep)))), evidence.NeedCalls, "CAP_SYS_PTRACE"),
			"accept_loop_blocked",
			[]string{"without CAP_SYS_PTRACE synspy could not see which calls its threads were in"}},
		{"the same, and nobody ever accepted",
			without(evidenceOf(thread(listener(16, rate(10, 100), rate(10, 0)), false,
				always(unseen(inSleep)))), evidence.NeedCalls, "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"),
			"no_acceptor", []string{"possible",
				"without CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE synspy could not see"}},
		{"a queue that would do, if it is not the loop", without(evidenceOf(tinyWindow(4)),
			evidence.NeedCalls, "CAP_SYS_PTRACE"),
			"backlog_too_small", []string{"possible", "CAP_SYS_PTRACE"}},
		{"nothing dropped that a hook for it would have seen",
			whole(evidenceOf(healthyListener()), evidence.NeedIngress, "CAP_SYSLOG"),
			"healthy", []string{"proves nothing", "CAP_SYSLOG"}},
		{"nothing arrived, and what dies before the listener is not to be seen",
			whole(&evidence.Evidence{WindowMs: 1000}, evidence.NeedIngress,
				"CAP_SYSLOG"),
			"no_syn_arrived", []string{"possible", "CAP_SYSLOG"}},
		{"stopped, which the state says that anybody may read",
			without(evidenceOf(thread(blockedWindow(16), true, between(2000, 7000,
				stopped, inPoll))), evidence.NeedCalls, "CAP_SYS_PTRACE"),
			"process_stopped", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Diagnose(tt.e)
			if len(d.Findings) == 0 || string(d.Findings[0].ID) != tt.want {
				t.Fatalf("findings %+v, want %s first", d.Findings, tt.want)
			}
			for _, text := range tt.verdict {
				if !strings.Contains(d.Verdict, text) {
					t.Errorf("the verdict does not say %q: %s", text, d.Verdict)
				}
			}
			if possible := d.Findings[0].Confidence == event.ConfidencePossible; possible != (tt.verdict != nil) {
				t.Errorf("confidence %s: %s", d.Findings[0].Confidence, d.Verdict)
			}
			if strings.Contains(d.Findings[0].Settles, "longer session") {
				t.Errorf("a longer session would see no more: %s",
					d.Findings[0].Settles)
			}
		})
	}
}

func whole(e *evidence.Evidence, n evidence.Need, by ...string) *evidence.Evidence {
	e.Missing = append(e.Missing, evidence.Gap{Need: n, Why: "not seen", By: by})
	return e
}

// TestRefusedEverywhere refuses each kind of evidence in every window that there is: whatever rests
// on it is possible at most, and names what it takes.
func TestRefusedEverywhere(t *testing.T) {
	for _, c := range cases {
		for _, need := range []evidence.Need{evidence.NeedSyns, evidence.NeedAccepts,
			evidence.NeedThreads, evidence.NeedCalls, evidence.NeedOwners,
			evidence.NeedOnCPU, evidence.NeedThrottled, evidence.NeedSysctls,
			evidence.NeedMembers, evidence.NeedSynAcks,
			evidence.NeedIngress, evidence.NeedDevices} {
			d := Diagnose(without(whole(clone(t, c.e), need, "CAP_ONE"), need,
				"CAP_TWO"))
			for _, f := range d.Findings {
				if !slices.Contains(rules.Rests[f.ID], need) ||
					strings.HasPrefix(f.Title,
						"accept() of ") { // what accept() returned needs no threads
					continue
				}
				if f.Confidence != event.ConfidencePossible ||
					!strings.Contains(f.Settles, "CAP_ONE") {
					t.Errorf("%s, without %s: %s is %s, settled by %q", c.name,
						need, f.ID, f.Confidence, f.Settles)
				}
				if !slices.ContainsFunc(f.Evidence,
					func(e event.Evidence) bool {
						return e.What == rules.About(need)
					}) {
					t.Errorf("%s, without %s: not among the evidence of %s: %v",
						c.name, need, f.ID, f.Evidence)
				}
			}
		}
	}
}

// TestRefusedOfAnother lets a listener be judged whose evidence was had, whatever was refused of
// another one.
func TestRefusedOfAnother(t *testing.T) {
	e := evidenceOf(thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll)),
		healthyListener())
	e.Listeners[1].Missing = []evidence.Gap{{Need: evidence.NeedCalls, Why: "permission denied",
		By: []string{"CAP_SYS_PTRACE"}}}
	if f := Diagnose(e).Findings[0]; f.ID != event.FindingAcceptLoopBlocked ||
		f.Confidence == event.ConfidencePossible {
		t.Errorf("%s is %s", f.ID, f.Confidence)
	}
}

// TestRefusedBesideHarmless: the verdict that proves nothing does not deny what died without harm.
func TestRefusedBesideHarmless(t *testing.T) {
	e := whole(evidenceOf(healthyListener()), evidence.NeedIngress, "CAP_SYSLOG")
	e.Listeners[0].Counts = []event.Count{{Cause: event.CauseBadHandshakeAck,
		Stage: event.StageAck, Action: event.ActionDropped, Count: 3}}
	e.Counts = e.Listeners[0].Counts
	if got := Diagnose(e).Verdict; !strings.HasPrefix(got,
		"3 packets died, and no handshake is known to have failed by it, which proves nothing: ") {
		t.Error(got)
	}
}
