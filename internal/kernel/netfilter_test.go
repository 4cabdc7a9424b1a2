package kernel

import (
	"reflect"
	"testing"
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
	if want := []PacketQueue{{Number: 7, PortID: 31337, Waiting: 12, Dropped: 7}}; !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}
