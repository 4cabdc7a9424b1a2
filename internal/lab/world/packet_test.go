// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"
)

func mustDecode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestChecksum(t *testing.T) {
	tests := []struct {
		name string
		hex  string
		want uint16
	}{
		{"RFC 1071 section 3", "0001f203f4f5f6f7", 0xddf2},
		{"odd length", "0001f203f4f5f6", 0xdcfb},
		{"empty", "", 0},
		{"carry folds twice", "ffffffff0001", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Fold(Sum(0, mustDecode(t, test.hex))); got != test.want {
				t.Errorf("sum is %#x, want %#x", got, test.want)
			}
		})
	}
}

// A known header: the IPv4 checksum example with checksum 0xb861.
func TestHeader4(t *testing.T) {
	got := Header4(netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("192.168.0.199"), 17,
		nil, 0x73-20)
	if want := mustDecode(t, "450000730000400040"+"11b861c0a80001c0a800c7"); !bytes.Equal(got,
		want) {
		t.Errorf("header is\n%x, want\n%x", got, want)
	}
}

func TestSegmentRoundTrip(t *testing.T) {
	v4 := [2]netip.AddrPort{netip.MustParseAddrPort("10.99.0.2:20000"),
		netip.MustParseAddrPort("10.99.0.1:8080")}
	v6 := [2]netip.AddrPort{netip.MustParseAddrPort("[fd99::2]:20000"),
		netip.MustParseAddrPort("[fd99::1]:8080")}
	mss := []byte{optionMSS, 4, 0x05, 0xb4}
	tests := []struct {
		name string
		s    Segment
		size int
	}{
		{"IPv4 SYN", Segment{Src: v4[0], Dst: v4[1], Seq: 1, Flags: FlagSYN, window: 64240,
			Options: mss}, 20 + 24},
		{"IPv4 options", Segment{Src: v4[0], Dst: v4[1], Flags: FlagSYN, Options: mss,
			ipOptions: []byte{1, 1, 1, 0}}, 24 + 24},
		{"IPv4 odd payload", Segment{Src: v4[0], Dst: v4[1], Seq: 0xffffffff, ACK: 7,
			Flags: FlagACK | FlagPSH, Payload: []byte("abc")}, 20 + 23},
		{"IPv6 SYN", Segment{Src: v6[0], Dst: v6[1], Seq: 1, Flags: FlagSYN, Options: mss},
			40 + 24},
		{"IPv6 RST", Segment{Src: v6[0], Dst: v6[1], Seq: 1, Flags: FlagRST}, 40 + 20},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			packet := test.s.Marshal()
			if len(packet) != test.size {
				t.Errorf("packet has %d bytes, want %d", len(packet), test.size)
			}
			got, err := ParseSegment(packet)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.s) {
				t.Errorf("parsed %+v, want %+v", got, test.s)
			}
			// Every flipped bit of the TCP part must be noticed, and so must
			// a shortened packet.
			for i := len(packet) - 20; i < len(packet); i++ {
				packet[i] ^= 0x10
				if _, err := ParseSegment(packet); err == nil {
					t.Errorf("byte %d is wrong and nobody noticed", i)
				}
				packet[i] ^= 0x10
			}
			for n := range packet {
				if _, err := ParseSegment(packet[:n]); err == nil {
					t.Errorf("%d of %d bytes were accepted", n, len(packet))
				}
			}
		})
	}
}

func TestOption(t *testing.T) {
	s := Segment{Options: []byte{OptionNOP, optionMSS, 4, 0x05, 0xb4, optionWindowScale, 3, 7,
		optionEnd, optionSACK, 2}}
	if v, ok := s.Option(optionWindowScale); !ok || !bytes.Equal(v, []byte{7}) {
		t.Errorf("window scale is %v, %t", v, ok)
	}
	if _, ok := s.Option(optionSACK); ok {
		t.Error("found an option behind the end of options")
	}
	for _, broken := range [][]byte{{optionMSS}, {optionMSS, 0}, {optionMSS, 9, 1}} {
		if _, ok := (Segment{Options: broken}).Option(optionWindowScale); ok {
			t.Errorf("found an option in %v", broken)
		}
	}
}

func FuzzParseSegment(f *testing.F) {
	f.Add(Segment{
		Src: netip.MustParseAddrPort("10.99.0.2:20000"),
		Dst: netip.MustParseAddrPort("10.99.0.1:8080"), Flags: FlagSYN,
	}.Marshal())
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, err := ParseSegment(packet)
		if err != nil {
			return
		}
		s.Option(OptionTimestamps)
	})
}
