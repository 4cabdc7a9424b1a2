// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"reflect"
	"testing"

	"github.com/google/nftables/expr"
)

func TestConntrack(t *testing.T) {
	var c Conntrack
	c.add([]byte("entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n" +
		"00000006  00000000 00000000 00000000 00000002 00000000 00000000 00000000 00000000 00000001 0000001f 00000003 00000000  00000000 00000000 00000000 00000000\n" +
		"00000006  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000  00000000 00000000 00000000 00000000\n"))
	if want := (Conntrack{Drops: 0x20, EarlyDrops: 3, InsertFailed: 1, Invalid: 3}); c != want {
		t.Errorf("read %+v, want %+v", c, want)
	}
}

func TestPacketQueues(t *testing.T) {
	got := packetQueues([]byte("    7  31337    12 2 65531     3     4     9999  1\nrubbish\n"))
	if want := []PacketQueue{{Number: 7, PortID: 31337, Waiting: 12,
		Dropped: 7}}; !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

func TestDroppedBy(t *testing.T) {
	count := &expr.Counter{Packets: 18}
	for _, c := range []struct {
		name    string
		exprs   []expr.Any
		packets uint64
		ok      bool
	}{
		{"drop", []expr.Any{count, &expr.Verdict{Kind: expr.VerdictDrop}}, 18, true},
		{"reject", []expr.Any{count, &expr.Reject{}}, 18, true},
		{"iptables' REJECT",
			[]expr.Any{&expr.Match{Name: "tcp"}, count, &expr.Target{Name: "REJECT"}},
			18, true},
		{"accept", []expr.Any{count, &expr.Verdict{Kind: expr.VerdictAccept}}, 18, false},
		{"not counted", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, 0, false},
	} {
		if packets, ok := droppedBy(c.exprs); packets != c.packets || ok != c.ok {
			t.Errorf("%s: %d packets, %t; want %d, %t", c.name, packets, ok, c.packets,
				c.ok)
		}
	}
}
