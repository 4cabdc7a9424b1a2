// SPDX-License-Identifier: Apache-2.0

package counters

import (
	"testing"
	"time"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/session"
)

func at(second int, counters kernel.SNMP) reading {
	return reading{kernel.NetNS{Inode: 7}, time.Unix(int64(second), 0), counters}
}

// TestCounterValues: what moved, by how much, how fast; what the kernel does not
// have is absent.
func TestCounterValues(t *testing.T) {
	before := at(10, kernel.SNMP{"ListenDrops": 5, "ListenOverflows": 5, "TcpOutRsts": 9,
		"IpInReceives": 1})
	now := at(14, kernel.SNMP{"ListenDrops": 15, "ListenOverflows": 5, "TcpOutRsts": 10,
		"IpInReceives": 100})
	some, all := &counters{}, &counters{options: Options{All: true}}
	got := some.values(now, before)
	if len(got) != 2 || got[0].Name != "ListenDrops" || *got[0].Delta != 10 ||
		*got[0].Rate != 2.5 || got[0].Shared ||
		got[1].Name != "TcpOutRsts" || !got[1].Shared {
		t.Errorf("got %+v", got)
	}
	if got := all.values(now, before); len(got) != 3 || got[0].Name != "ListenOverflows" ||
		*got[0].Delta != 0 {
		t.Errorf("all: got %+v", got)
	}
	if got := some.values(now, reading{}); len(got) != 3 || got[0].Delta != nil ||
		got[0].Rate != nil {
		t.Errorf("without an earlier reading: got %+v", got)
	}
	if got := some.values(at(14, kernel.SNMP{"ListenDrops": 0}), reading{}); len(got) != 0 {
		t.Errorf("nothing counted: got %+v", got)
	}
	// Two readings at the same moment have no rate.
	if got := some.values(at(10, now.counters), before); got[0].Rate != nil ||
		*got[0].Delta != 10 {
		t.Errorf("in no time: got %+v", got)
	}
}

// TestWentBack: an inode that is another namespace's now shows no huge numbers.
func TestWentBack(t *testing.T) {
	before := kernel.SNMP{"ListenDrops": 5, "TcpOutRsts": 9}
	for _, c := range []struct {
		now  kernel.SNMP
		want bool
	}{
		{kernel.SNMP{"ListenDrops": 5, "TcpOutRsts": 9}, false},
		{kernel.SNMP{"ListenDrops": 6, "TcpOutRsts": 8}, true},
		{kernel.SNMP{"ListenDrops": 0, "TcpOutRsts": 10}, true},
		{kernel.SNMP{"ListenDrops": 6, "TcpOutRsts": 9, "ListenOverflows": 1}, false},
	} {
		if got := session.WentBack(c.now, before); got != c.want {
			t.Errorf("%v: %v", c.now, got)
		}
	}
}
