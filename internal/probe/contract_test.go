// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
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
			t.Errorf("%s: before_listener() in bpf/emit.h says %v", value.Name, ingress)
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
		t.Fatalf("bpf/event.h has %d counters, internal/event %d", len(values)-1,
			event.NumCounters)
	}
	for _, value := range values[:event.NumCounters] {
		c := squeeze.Replace(strings.ToLower(value.Name))
		name := squeeze.Replace(strings.ToLower(event.Counter(value.Value).String()))
		if c != name {
			t.Errorf("%s is %v in internal/event", value.Name,
				event.Counter(value.Value))
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
		addr, mask := load.PrefixBytes(netip.MustParsePrefix(test.prefix))
		if netip.AddrFrom16(addr) != netip.MustParseAddr(test.addr) ||
			netip.AddrFrom16(mask) != netip.MustParseAddr(test.mask) {
			t.Errorf("%s: %v mask %v", test.prefix, netip.AddrFrom16(addr),
				netip.AddrFrom16(mask))
		}
	}
}

func TestDecodeRefusesShortMessages(t *testing.T) {
	var m message.Message
	full := make([]byte, unsafe.Sizeof(bpf.SynspyRecord{}))
	if !m.Decode(full) {
		t.Fatal("a whole record is refused")
	}
	for n := range len(full) {
		if m.Decode(full[:n]) {
			t.Fatalf("a record of %d bytes is taken", n)
		}
	}
	if m.Decode([]byte{255, 0, 0, 0}) {
		t.Error("an unknown kind is taken")
	}
}
