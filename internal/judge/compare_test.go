// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
)

// TestUnseen: only what makes no record at all is left out of what a scenario expects.
func TestUnseen(t *testing.T) {
	blind := []event.Blind{
		{Cause: event.CauseListenerClosed, Stage: event.StageAck, Shows: event.ShowsNothing,
			Why: "no hook"},
		{Cause: event.CausePolicy, Shows: event.ShowsNothing, Why: "no reasons"},
		{Cause: event.CauseRPFilter, Stage: event.StageIngress, Shows: "kernel_other",
			Why: "no reasons"},
		{Cause: event.CauseBadSyn, Stage: event.StageSyn, Part: "with FIN",
			Shows: event.ShowsNothing, Why: "no event"},
		{Cause: event.CauseICMPError, Stage: event.StageAck, Shows: event.ShowsUnattributed,
			Why: "no hook"},
	}
	hooks := []event.Hook{{Name: "a", Blind: blind[:2]},
		{Name: "b", Attached: true, Blind: blind[2:]}}
	for _, test := range []struct {
		cause event.Cause
		stage event.Stage
		want  string
	}{
		{event.CauseListenerClosed, event.StageAck, "listener_closed at ack: no hook"},
		{event.CauseListenerClosed, event.StageClose, ""},
		{event.CausePolicy, event.StageIngress, "policy at ingress: no reasons"},
		{event.CauseRPFilter, event.StageIngress, ""},
		{event.CauseBadSyn, event.StageSyn, ""},
		{event.CauseICMPError, event.StageAck, ""},
	} {
		got, unseen := unseenBy(hooks,
			scenario.Expect{Cause: test.cause, Stage: test.stage})
		if got != test.want || unseen != (test.want != "") {
			t.Errorf("%v at %v: %q, %v", test.cause, test.stage, got, unseen)
		}
	}
}

// TestUncovered: a scenario cannot be judged where its records show as the hooks say they
// do; anything else that differs is a fault.
func TestUncovered(t *testing.T) {
	hooks := []event.Hook{{Blind: []event.Blind{
		{Cause: event.CauseSocketFilter, Stage: event.StageSyn, Shows: "kernel_other",
			Why: "no reasons"},
		{Cause: event.CauseSocketFilter, Stage: event.StageAck, Shows: event.ShowsNothing,
			Why: "no socket"},
		{Cause: event.CauseBadSyn, Stage: event.StageSyn, Part: "with FIN",
			Shows: event.ShowsNothing, Why: "no event"},
		{Cause: event.CauseSynBacklogReserve, Stage: event.StageSyn,
			Shows: "syn_backlog_reserve", Why: "inferred"},
	}}}
	expect := func(cause event.Cause, stage event.Stage, n int) scenario.Expect {
		return scenario.Expect{Cause: cause, Stage: stage, Action: event.ActionDropped,
			Count: n}
	}
	count := func(cause event.Cause, stage event.Stage, n uint64) event.Count {
		return event.Count{Cause: cause, Stage: stage, Action: event.ActionDropped,
			Count: n}
	}
	filtered := []scenario.Expect{expect(event.CauseSocketFilter, event.StageSyn, 3),
		expect(event.CauseSocketFilter, event.StageAck, 2)}
	badSyns := []scenario.Expect{expect(event.CauseBadSyn, event.StageSyn, 6),
		expect(event.CauseICMPError, event.StageAck, 1)}
	for _, test := range []struct {
		name     string
		records  []scenario.Expect
		recorded []event.Count
		passed   bool
		want     bool
	}{
		{"as another cause", filtered,
			[]event.Count{count(event.CauseKernelOther, event.StageIngress,
				3)}, false, true},
		{"none", filtered, nil, false, true},
		{"none, and none was expected", filtered[1:], nil, true, true},
		{"too many", filtered,
			[]event.Count{count(event.CauseKernelOther, event.StageIngress,
				6)}, false, false},
		{"as what nobody said", filtered,
			[]event.Count{count(event.CauseNetfilter, event.StageIngress,
				3)}, false, false},
		{"in part", badSyns, []event.Count{count(event.CauseBadSyn, event.StageSyn, 3),
			count(event.CauseICMPError, event.StageAck, 1)}, false, true},
		{"in part, and another one is missing", badSyns,
			[]event.Count{count(event.CauseBadSyn, event.StageSyn, 3)}, false, false},
		{"all of it", badSyns, []event.Count{count(event.CauseBadSyn, event.StageSyn, 6),
			count(event.CauseICMPError, event.StageAck, 1)}, true, false},
		{"weaker proof",
			[]scenario.Expect{expect(event.CauseSynBacklogReserve, event.StageSyn,
				2)}, nil, false, false},
	} {
		v := &Verdict{Recorded: test.recorded, Passed: test.passed,
			Summary: event.Summary{Balanced: true}}
		if why := uncovered(v, test.records, hooks); (why != "") != test.want {
			t.Errorf("%s: %q", test.name, why)
		}
		v.Summary.Balanced = false
		if why := uncovered(v, test.records, hooks); why != "" {
			t.Errorf("%s, ledger not balanced: %q", test.name, why)
		}
	}
}

// TestAllRecorded: what the hooks may not tell in part is no excuse where all of it was told,
// and nothing is not all of something.
func TestAllRecorded(t *testing.T) {
	policy := []scenario.Expect{{Cause: event.CausePolicy, Stage: event.StageIngress,
		Action: event.ActionDropped, Count: 3}}
	row := func(cause event.Cause, n uint64) []event.Count {
		return []event.Count{{Cause: cause, Stage: event.StageIngress,
			Action: event.ActionDropped, Count: n}}
	}
	for _, test := range []struct {
		name     string
		records  []scenario.Expect
		recorded []event.Count
		want     bool
	}{
		{"all", policy, row(event.CausePolicy, 3), true},
		{"some", policy, row(event.CausePolicy, 2), false},
		{"as another cause", policy, row(event.CauseKernelOther, 3), false},
		{"none", policy, nil, false},
		{"nothing to tell", nil, nil, false},
	} {
		if got := allRecorded(&Verdict{Recorded: test.recorded},
			test.records); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}
