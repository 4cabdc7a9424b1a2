// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadPerfMap(t *testing.T) {
	const text = `7f00001000 100 JS:~handle /app/node_modules/@x/y.js:3
7f00002000 80 old name
not a line
7f00003000 0 empty
ffffffffffffffff 10 beyond the end
0x7f00004000 0x10 with prefixes
7f00002000 40 new name
7f00005000 20 ` + "\x1b[31m\xff" + `
`
	addresses := []uint64{0x7f00000fff, 0x7f00001000, 0x7f000010ff, 0x7f00001100, 0x7f00002010,
		0x7f00002050,
		0x7f00003000, 0x7f00004001, 0x7f00005000}
	want := map[uint64]place{
		0x7f00001000: {"JS:~handle /app/node_modules/@x/y.js:3", 0},
		0x7f000010ff: {"JS:~handle /app/node_modules/@x/y.js:3", 0xff},
		0x7f00002010: {"new name", 0x10}, // code of before was replaced
		0x7f00002050: {"old name", 0x50},
		0x7f00004001: {"with prefixes", 1},
		0x7f00005000: {"\x1b[31m\xff", 0},
	}
	for name, reader := range map[string]func() *strings.Reader{
		"whole": func() *strings.Reader { return strings.NewReader(text) }} {
		got, err := readPerfMap(context.Background(), iotest.OneByteReader(reader()),
			addresses)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
		}
	}
}

func TestReadPerfMapCutsLongNames(t *testing.T) {
	long := "1000 10 " + strings.Repeat("n", 3*maxPerfMapLine) + "\n2000 10 next\n"
	got, err := readPerfMap(context.Background(), strings.NewReader(long),
		[]uint64{0x1001, 0x2001})
	if err != nil || got[0x2001].name != "next" || len(got[0x1001].name) > maxPerfMapLine {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzReadPerfMap(f *testing.F) {
	f.Add([]byte("1000 10 name\n2000 ffffffffffffffff all\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		addresses := []uint64{0, 0x1000, 0x1001, 1 << 63, 1<<64 - 1}
		got, err := readPerfMap(context.Background(), strings.NewReader(string(text)),
			addresses)
		if err != nil {
			t.Fatal(err)
		}
		for address, p := range got {
			if p.name == "" || !slices.Contains(addresses, address) ||
				p.offset > address {
				t.Errorf("%#x is %+v", address, p)
			}
		}
	})
}
