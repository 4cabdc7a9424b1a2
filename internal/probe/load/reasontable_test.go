// SPDX-License-Identifier: Apache-2.0

package load

import (
	"testing"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// TestOutcomeTable: what counters alone tell is told of each set of them, and no two outcomes that
// move the same ones are told by them alone.
func TestOutcomeTable(t *testing.T) {
	table, told := outcomeTable(), 0
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		branch := o.Branch()
		if branch.At() != 0 && !branch.ByCounters() {
			if table[movement(&branch)] == uint8(event.OutcomeNone) {
				t.Errorf("outcome %d: %v alone tell nothing", o, o.CounterNames())
			}
		}
		if !branch.ByCounters() {
			continue
		}
		told++
		if got := event.Outcome(table[movement(&branch)]); got != o {
			t.Errorf("outcome %d is told as %d: %v", o, got, o.CounterNames())
		}
	}
	for _, o := range table {
		if o != 0 {
			told--
		}
	}
	if told != 0 {
		t.Errorf("%d outcomes are told that are in no branch", -told)
	}
	bits := func(counters ...event.Counter) (moved int) {
		for _, c := range counters {
			moved |= 1 << c
		}
		return moved
	}
	const (
		syn  = bpf.SynspyStageSTAGE_SYN
		ack  = bpf.SynspyStageSTAGE_ACK
		icmp = bpf.SynspyStageSTAGE_ICMP
	)
	full := bits(event.CounterListenOverflows, event.CounterListenDrops)
	for _, tt := range []struct {
		stage bpf.SynspyStage
		moved int
		want  event.Outcome
	}{
		{syn, 0, event.OutcomeNone},
		{syn, full, event.OutcomeSynAcceptQueueFull},
		{syn, bits(event.CounterListenDrops), event.OutcomeSynOther},
		{syn, bits(event.CounterListenOverflows), event.OutcomeNone},
		{ack, full, event.OutcomeAckAcceptQueueFull},
		{ack, bits(event.CounterListenDrops), event.OutcomeAckOther},
		{ack, bits(event.CounterEmbryonicRsts), event.OutcomeAckBadReset},
		{ack, bits(event.CounterSyncookiesRecv), event.OutcomeAckCookieAccepted},
		{icmp, bits(event.CounterListenDrops), event.OutcomeICMPError},
		{icmp, full, event.OutcomeNone},
	} {
		if got := event.Outcome(table[int(tt.stage)*movements+tt.moved]); got != tt.want {
			t.Errorf("stage %d, counters %b: outcome %d", tt.stage, tt.moved, got)
		}
	}
}

// TestReasonTable: reasons that decide a cause are sorted so, on whatever number.
func TestReasonTable(t *testing.T) {
	table := reasonTable(map[string]uint32{
		"SKB_DROP_REASON_NO_SOCKET": 7, "SKB_DROP_REASON_TCP_MD5FAILURE": 200,
		"SKB_DROP_REASON_TCP_AO_OF_TOMORROW": 201, "SKB_DROP_REASON_QDISC_OF_TOMORROW": 10,
		"SKB_DROP_REASON_QUEUE_PURGE": 9, "SKB_DROP_REASON_MAX": 1 << 16,
	})
	for number, want := range map[int]event.Outcomes{
		7:   {Syn: event.OutcomeIngressNoListener, Ack: event.OutcomeAckBadQuiet},
		200: {Syn: event.OutcomeSynAuthFailed, Ack: event.OutcomeAckAuthFailed},
		201: {Syn: event.OutcomeSynAuthFailed, Ack: event.OutcomeAckAuthFailed},
		9:   {}, 10: {},
		3: {Syn: event.OutcomeIngressOther, Ack: event.OutcomeAckOtherFreed},
	} {
		got := table[number]
		if got.Syn != uint8(want.Syn) || got.Ack != uint8(want.Ack) {
			t.Errorf("reason %d has outcomes %+v, want %+v", number, got, want)
		}
	}
}
