// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"slices"
	"strings"
	"testing"
)

const someMaps = `55d0c0a00000-55d0c0a28000 r--p 00000000 fe:00 1234                       /usr/sbin/nginx
55d0c0a28000-55d0c0b00000 r-xp 00028000 fe:00 1234                       /usr/sbin/nginx
7f0000000000-7f0000010000 rwxp 00000000 00:00 0 
7f2222222000-7f2222223000 r-xp 00001000 00:01 99                         /memfd:doublemapper (deleted)
7f3333333000-7f3333334000 r-xp 00000000 fe:00 77                         /tmp/a\012b c (deleted)
nonsense
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
7fffffffffff-1 r-xp 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]`

func TestParseMaps(t *testing.T) {
	got, err := parseMaps(strings.NewReader(someMaps))
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{
		{0x55d0c0a28000, 0x55d0c0b00000, 0x28000, "fe:00", 1234, "/usr/sbin/nginx"},
		{0x7f0000000000, 0x7f0000010000, 0, "00:00", 0, ""},
		{0x7f2222222000, 0x7f2222223000, 0x1000, "00:01", 99,
			"/memfd:doublemapper (deleted)"},
		{0x7f3333333000, 0x7f3333334000, 0, "fe:00", 77, "/tmp/a\nb c (deleted)"},
		{0x7fff00000000, 0x7fff00002000, 0, "00:00", 0, "[vdso]"},
		{0xffffffffff600000, 0xffffffffff601000, 0, "00:00", 0, "[vsyscall]"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for address, path := range map[uint64]string{0x55d0c0a28000: "/usr/sbin/nginx",
		0x55d0c0afffff: "/usr/sbin/nginx",
		0x7fff00000fff: "[vdso]"} {
		if m := find(got, address); m == nil || m.path != path {
			t.Errorf("%#x is in %+v, want %s", address, m, path)
		}
	}
	for _, address := range []uint64{0, 0x55d0c0a27fff, 0x55d0c0b00000, 1<<64 - 1} {
		if m := find(got, address); m != nil {
			t.Errorf("%#x is in %+v, want nothing", address, m)
		}
	}
}

func TestParseMapsPassesOverLongLines(t *testing.T) {
	long := "1000-2000 r-xp 00000000 fe:00 5 /" + strings.Repeat("a", 3*maxMapsLine) + "\n"
	got, err := parseMaps(strings.NewReader(long + "3000-4000 r-xp 00000000 fe:00 5 /b\n"))
	if err != nil || len(got) != 1 || got[0].path != "/b" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMergeKeepsWhatWasUnmapped(t *testing.T) {
	before := []mapping{{start: 0x1000, end: 0x2000, path: "old"},
		{start: 0x5000, end: 0x6000, path: "replaced"},
		{start: 0x9000, end: 0xa000, path: "last"}}
	now := []mapping{{start: 0x3000, end: 0x4000, path: "new"},
		{start: 0x5800, end: 0x7000, path: "there"}}
	var paths []string
	for _, m := range merge(now, before) {
		paths = append(paths, m.path)
	}
	if want := []string{"old", "new", "there", "last"}; !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add([]byte(someMaps))
	f.Add([]byte("0-ffffffffffffffff r-xp ffffffffffffffff 00:00 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		mappings, err := parseMaps(strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err) // a reader of memory does not fail
		}
		for _, m := range mappings {
			if m.end <= m.start || m.offset+(m.end-m.start) < m.offset {
				t.Errorf("took %+v", m)
			}
		}
		find(mappings, 0x1000)
		if len(merge(mappings, mappings)) > 2*len(mappings) {
			t.Error("merging makes more than both")
		}
	})
}
