// SPDX-License-Identifier: Apache-2.0

package world

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestMemberOf(t *testing.T) {
	number := &btf.Int{Name: "u16", Size: 2}
	pair := &btf.Struct{Members: []btf.Member{{Name: "remote", Type: number},
		{Name: "local", Type: number, Offset: 16}}}
	either := &btf.Union{Members: []btf.Member{{Name: "both", Type: &btf.Int{Size: 4}},
		{Type: pair}}}
	outer := &btf.Typedef{Type: &btf.Struct{Members: []btf.Member{
		{Name: "first", Type: number}, {Type: either, Offset: 64}, {Name: "named",
			Type: pair, Offset: 96},
	}}}
	for name, want := range map[string]btf.Bits{"first": 0, "both": 64, "remote": 64,
		"local": 80, "named": 96} {
		if m, ok := memberOf(outer, name); !ok || m.Offset != want || m.Name != name {
			t.Errorf("%s: got %s at bit %d (%t), want %d", name, m.Name, m.Offset, ok,
				want)
		}
	}
	if m, ok := memberOf(outer, "none"); ok {
		t.Errorf("found a member that is not there at bit %d", m.Offset)
	}
}
