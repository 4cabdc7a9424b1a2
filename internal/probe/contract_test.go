// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// enumerators returns the named enum of the compiled BPF object.
func enumerators(t *testing.T, name string) []btf.EnumValue {
	t.Helper()
	spec, err := bpf.LoadSynspy()
	if err != nil {
		t.Fatal(err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName(name, &enum); err != nil {
		t.Fatal(err)
	}
	return enum.Values
}

// TestOutcomesAgree holds the kernel side's outcomes, Go's names and the branch table together.
func TestOutcomesAgree(t *testing.T) {
	values := enumerators(t, "outcome")
	if got, want := len(values), int(event.NumOutcomes)+1; got != want {
		t.Fatalf("bpf/outcomes.h has %d outcomes, internal/event %d", got-1, want-1)
	}
	for _, value := range values[1 : len(values)-1] {
		branch := event.Outcome(value.Value).Branch()
		stage := strings.ToLower(strings.Split(value.Name, "_")[1])
		if stage == "icmp" {
			stage = "ack"
		}
		if branch.Kind == event.KindNone || branch.Stage.String() != stage {
			t.Errorf("%s is at stage %v in internal/event", value.Name, branch.Stage)
		}
		o := event.Outcome(value.Value)
		ingress := o >= event.OutcomeIngressNoListener && o <= event.OutcomeIngressOtherRefused
		if ingress != (branch.Stage == event.StageIngress) {
			t.Errorf("%s: before_listener() in bpf/record.h says %v", value.Name, ingress)
		}
		// The cause's name is in the outcome's, unless the outcome is of no cause.
		name := strings.ToLower(value.Name)
		switch branch.Cause {
		case event.CauseUnknown:
		case event.CauseKernelOther:
			if !strings.Contains(name, "other") {
				t.Errorf("%s is %v", value.Name, branch.Cause)
			}
		case event.CauseBadHandshakeAck:
			if !strings.Contains(name, "_bad_") {
				t.Errorf("%s is %v", value.Name, branch.Cause)
			}
		default:
			if !strings.Contains(name, branch.Cause.String()) {
				t.Errorf("%s is %v", value.Name, branch.Cause)
			}
		}
	}
}

// TestCountersAgree holds the closed list's order together.
func TestCountersAgree(t *testing.T) {
	squeeze := strings.NewReplacer("_", "", "counter", "", "tcp", "")
	values := enumerators(t, "counter")
	if len(values) != int(event.NumCounters)+1 {
		t.Fatalf("bpf/event.h has %d counters, internal/event %d", len(values)-1, event.NumCounters)
	}
	for _, value := range values[:event.NumCounters] {
		c := squeeze.Replace(strings.ToLower(value.Name))
		name := squeeze.Replace(strings.ToLower(event.Counter(value.Value).String()))
		if c != name {
			t.Errorf("%s is %v in internal/event", value.Name, event.Counter(value.Value))
		}
	}
}

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

// TestFates: reasons that decide a cause are sorted so, on whatever number.
func TestFates(t *testing.T) {
	table := fateTable(map[string]uint32{"SKB_DROP_REASON_NO_SOCKET": 7, "SKB_DROP_REASON_TCP_MD5FAILURE": 200,
		"SKB_DROP_REASON_TCP_AO_OF_TOMORROW": 201, "SKB_DROP_REASON_QDISC_OF_TOMORROW": 10,
		"SKB_DROP_REASON_QUEUE_PURGE": 9, "SKB_DROP_REASON_MAX": 1 << 16})
	for number, want := range map[int]event.Fate{
		7:   {Syn: event.OutcomeIngressNoListener, Ack: event.OutcomeAckBadQuiet},
		200: {Syn: event.OutcomeSynAuthFailed, Ack: event.OutcomeAckAuthFailed},
		201: {Syn: event.OutcomeSynAuthFailed, Ack: event.OutcomeAckAuthFailed},
		9:   {}, 10: {},
		3: {Syn: event.OutcomeIngressOther, Ack: event.OutcomeAckOtherFreed},
	} {
		got := table[number]
		if got.Syn != uint8(want.Syn) || got.Ack != uint8(want.Ack) {
			t.Errorf("reason %d has fate %+v, want %+v", number, got, want)
		}
	}
}

// TestLayout compares Go's structs with the object's BTF, field by field.
func TestLayout(t *testing.T) {
	spec, err := bpf.LoadSynspy()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uintptr{
		"record": unsafe.Sizeof(bpf.SynspyRecord{}), "listen_change": unsafe.Sizeof(bpf.SynspyListenChange{}),
		"holder": unsafe.Sizeof(bpf.SynspyHolder{}), "tally": unsafe.Sizeof(bpf.SynspyTally{}),
		"cpu_state": unsafe.Sizeof(bpf.SynspyCpuState{}), "snapshot": unsafe.Sizeof(bpf.SynspySnapshot{}),
	} {
		var typ *btf.Struct
		if err := spec.Types.TypeByName(name, &typ); err != nil {
			t.Fatal(err)
		}
		if uintptr(typ.Size) != size {
			t.Errorf("struct %s has %d bytes in C, %d in Go", name, typ.Size, size)
		}
	}
	var record bpf.SynspyRecord
	if unsafe.Offsetof(record.Kind) != 0 {
		t.Error("a message's kind is not its first byte")
	}
}

func TestPrefixBytes(t *testing.T) {
	for _, test := range []struct {
		prefix     string
		addr, mask string
	}{
		{"10.1.2.3/8", "::ffff:10.0.0.0", "ffff:ffff:ffff:ffff:ffff:ffff:ff00:0"},
		{"0.0.0.0/0", "::ffff:0.0.0.0", "ffff:ffff:ffff:ffff:ffff:ffff::"},
		{"192.0.2.1/32", "::ffff:192.0.2.1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"2001:db8::1/33", "2001:db8::", "ffff:ffff:8000::"},
		{"::/0", "::", "::"},
	} {
		addr, mask := prefixBytes(netip.MustParsePrefix(test.prefix))
		if netip.AddrFrom16(addr) != netip.MustParseAddr(test.addr) || netip.AddrFrom16(mask) != netip.MustParseAddr(test.mask) {
			t.Errorf("%s: %v mask %v", test.prefix, netip.AddrFrom16(addr), netip.AddrFrom16(mask))
		}
	}
}

func TestDecodeRefusesShortMessages(t *testing.T) {
	var m Message
	full := make([]byte, unsafe.Sizeof(bpf.SynspyRecord{}))
	if !m.decode(full) {
		t.Fatal("a whole record is refused")
	}
	for n := range len(full) {
		if m.decode(full[:n]) {
			t.Fatalf("a record of %d bytes is taken", n)
		}
	}
	if m.decode([]byte{255, 0, 0, 0}) {
		t.Error("an unknown kind is taken")
	}
}

func loadSpec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := bpf.LoadSynspy()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}
