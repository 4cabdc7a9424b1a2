// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestTypesAgree holds the walk over raw BTF against a library that decodes it.
func TestTypesAgree(t *testing.T) {
	types, err := ReadTypes("")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	for name, params := range types.Functions("tcp_check_req", "tcp_conn_request", "schedule",
		"no_such_function") {
		var fn *btf.Func
		if err := spec.TypeByName(name, &fn); err != nil {
			t.Fatal(err)
		}
		if want := len(fn.Type.(*btf.FuncProto).Params); params != want {
			t.Errorf("%s has %d parameters, want %d", name, params, want)
		}
	}
	if len(types.Functions("tcp_check_req", "no_such_function")) != 1 {
		t.Error("a function that does not exist was found, or one that does was not")
	}
	var def *btf.Typedef
	if err := spec.TypeByName("btf_trace_kfree_skb", &def); err != nil {
		t.Fatal(err)
	}
	want := len(def.Type.(*btf.Pointer).Target.(*btf.FuncProto).Params) - 1
	if got := types.Tracepoints("kfree_skb")["kfree_skb"]; got != want {
		t.Errorf("kfree_skb hands over %d arguments, want %d", got, want)
	}
}

func TestAnonymousEnum(t *testing.T) {
	types, err := ReadTypes("")
	if err != nil {
		t.Fatal(err)
	}
	mib := types.AnonymousEnum("LINUX_MIB_NUM")
	// The first five have been at their places since 2.6 (include/uapi/linux/snmp.h).
	for name, want := range map[string]uint32{"LINUX_MIB_NUM": 0, "LINUX_MIB_SYNCOOKIESSENT": 1,
		"LINUX_MIB_SYNCOOKIESRECV": 2, "LINUX_MIB_SYNCOOKIESFAILED": 3, "LINUX_MIB_EMBRYONICRSTS": 4} {
		if got, ok := mib[name]; !ok || got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if mib["LINUX_MIB_LISTENDROPS"] != mib["LINUX_MIB_LISTENOVERFLOWS"]+1 {
		t.Errorf("ListenDrops is at %d, ListenOverflows at %d",
			mib["LINUX_MIB_LISTENDROPS"], mib["LINUX_MIB_LISTENOVERFLOWS"])
	}
	if types.AnonymousEnum("NO_SUCH_ENUMERATOR") != nil {
		t.Error("an enum that does not exist was found")
	}
}

// FuzzTypes: a file given by --btf may be anything.
func FuzzTypes(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, btfHeader))
	if raw, err := os.ReadFile(BTFFile); err == nil {
		f.Add(raw[:4096])
	}
	f.Fuzz(func(_ *testing.T, raw []byte) {
		types, err := parseTypes(raw)
		if err != nil {
			return
		}
		types.Functions("a")
		types.Tracepoints("a")
		types.AnonymousEnum("a")
	})
}
