// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/net/sched/sch_fq.ko":                 "sch_fq",
		"kernel/drivers/virtio/virtio-pci.ko.xz":     "virtio_pci",
		"kernel/net/netfilter/nf-tables.ko.zst":      "nf_tables",
		"kernel/arch/x86/crypto/crc32c-intel.ko.zst": "crc32c_intel",
	} {
		if got := moduleName(file); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

func TestParseModinfo(t *testing.T) {
	got := parseModinfo([]byte("license=GPL\x00alias=net-pf-16\x00alias=fs-x\x00depends=nf-tables,crc32c\x00\x00parm=a=b\x00"))
	want := moduleInfo{depends: []string{"nf_tables", "crc32c"},
		aliases: []string{"net-pf-16", "fs-x"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(moduleInfo{})); diff != "" {
		t.Error(diff)
	}
	if got := parseModinfo([]byte("depends=\x00")); got.depends != nil {
		t.Errorf("no dependencies: got %q", got.depends)
	}
}

func TestLoadOrder(t *testing.T) {
	depends := map[string][]string{
		"tun":       nil,
		"nft_ct":    {"nf_tables", "conntrack"},
		"nf_tables": {"nfnetlink", "crc"},
		"nfnetlink": nil,
		"conntrack": {"crc", "ipv6"},
		"crc":       nil,
		"a":         {"b"},
		"b":         {"a"},
		"orphan":    {"gone"},
	}
	info := func(name string) (moduleInfo, error) {
		d, ok := depends[name]
		if !ok {
			return moduleInfo{}, errNoModule
		}
		return moduleInfo{depends: d}, nil
	}
	builtin := map[string]bool{"ipv6": true, "virtio_pci": true}
	for _, test := range []struct {
		name  string
		names []string
		want  []string
		fails bool
	}{
		{name: "chain", names: []string{"nft_ct"},
			want: []string{"nfnetlink", "crc", "nf_tables", "conntrack", "nft_ct"}},
		{name: "each once", names: []string{"nf_tables", "tun", "nft_ct", "tun"},
			want: []string{"nfnetlink", "crc", "nf_tables", "tun", "conntrack",
				"nft_ct"}},
		{name: "built in", names: []string{"virtio_pci", "tun"}, want: []string{"tun"}},
		{name: "circle", names: []string{"a"}, fails: true},
		{name: "missing", names: []string{"orphan"}, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := loadOrder(test.names, builtin, info)
			if (err != nil) != test.fails {
				t.Fatalf("got error %v", err)
			}
			if test.name == "missing" && !errors.Is(err, errNoModule) {
				t.Errorf("got error %v, want %v", err, errNoModule)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
