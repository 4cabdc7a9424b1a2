// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
)

// TestTables asks every map of every object what happens when it is full: where that is counted, and what the verdict
// says of it. That no object is left out, TestObjectsAreAsked of test/architecture says.
func TestTables(t *testing.T) {
	told := make(map[string]Table)
	for _, table := range answers() {
		told[table.Object+"."+table.Name] = table
	}
	fields, err := json.Marshal(event.Overflow{Namespaces: 1, Drops: 1, Syns: 1, Accepts: 1,
		Unnamed: 1, Changes: 1, Handshakes: 1,
		Uncounted: 1, Samples: 1})
	if err != nil {
		t.Fatal(err)
	}
	for object, load := range loadObjects() {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		for name, m := range spec.Maps {
			if strings.HasPrefix(name, ".") { // variables
				continue
			}
			table, ok := told[object+"."+name]
			delete(told, object+"."+name)
			switch {
			case !ok:
				t.Errorf("%s.%s: what happens when it is full?", object, name)
				continue
			case table.Holds == "" || table.Full == "":
				t.Errorf("%s.%s: says %q, %q", object, name, table.Holds,
					table.Full)
			case (table.Counted == "") != (table.Verdict == ""):
				t.Errorf("%s.%s: counted %q, but the verdict says %q", object, name,
					table.Counted, table.Verdict)
			}
			if bounded := m.Type == ebpf.Hash; bounded && table.Counted == "" &&
				!strings.Contains(table.Full, "exact") &&
				!strings.Contains(table.Full, "judged when") &&
				!strings.Contains(table.Full, "fewer") {
				t.Errorf("%s.%s: what it has no room for is counted nowhere",
					object, name)
			}
			for word := range strings.FieldsSeq(table.Counted) {
				field, ok := strings.CutPrefix(strings.Trim(word, ","), "overflow.")
				if ok && !strings.Contains(string(fields), `"`+field+`"`) {
					t.Errorf("%s.%s: the summary has no %s", object, name, word)
				}
			}
		}
	}
	for name := range told {
		t.Errorf("%s is no map", name)
	}
}

// TestSizes holds the kernel memory that busy tables take to 64 MiB on 128 CPUs: 10,000 namespaces in which something moved,
// in every second one on two CPUs, 100,000 listeners that packets reached, and as many that accepted lately and that drop as
// there is room for and as 10,000.
func TestSizes(t *testing.T) {
	const cpus, namespaces, listeners = 128, 10_000, 100_000
	spec, err := loadObjects()["synspy"]()
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]uint32{"openings": namespaces, "bases": namespaces,
		"tallies": namespaces + namespaces/2, "arrived": listeners,
		"acceptings": 1 << 14, "counts": listeners / 10, "filtered": 1 << 12, "wanted": 1}
	for _, late := range []bool{true, false} {
		facts := &facts.Facts{LateRows: late}
		if err := size(spec, facts, Config{Accepts: true}); err != nil {
			t.Fatal(err)
		}
		var bytes uint64
		for name, m := range spec.Maps {
			b := mapBytes(m, used[name], late, cpus)
			t.Logf("%-12s %8d rows %6d KiB", name, m.MaxEntries, b>>10)
			bytes += b
		}
		t.Logf("rows on first use %v: %d MiB", late, bytes>>20)
		if bytes > 64<<20 {
			t.Errorf("rows on first use %v: %d MiB of kernel memory", late, bytes>>20)
		}
		if late && (spec.Maps["openings"].MaxEntries < namespaces ||
			spec.Maps["arrived"].MaxEntries < listeners) {
			t.Errorf("room for %d namespaces and %d listeners",
				spec.Maps["openings"].MaxEntries, spec.Maps["arrived"].MaxEntries)
		}
	}
}

// mapBytes is what a map takes by the kernel's own bookkeeping (htab_map_mem_usage() and the like), rows made on first
// use rounded up to the sizes of the BPF allocator.
func mapBytes(m *ebpf.MapSpec, used uint32, late bool, cpus uint64) uint64 {
	const element, bucket = 48, 16
	up := func(n uint64) uint64 { return (n + 7) &^ 7 }
	key, value, rows := up(uint64(m.KeySize)), up(uint64(m.ValueSize)), uint64(m.MaxEntries)
	switch m.Type {
	case ebpf.RingBuf:
		return rows
	case ebpf.PerCPUArray:
		return rows * value * cpus
	case ebpf.Hash:
		size := element + key + value
		if !late {
			return rows*(size+bucket) + cpus*size
		}
		class := uint64(16)
		for class < size {
			class *= 2
		}
		if size <= 192 && size > 128 {
			class = 192
		}
		return rows*bucket + uint64(used)*class
	case ebpf.LRUHash:
		return rows * (element + 24 + key + value + bucket)
	default:
		return rows * (key + value)
	}
}

// loadObjects are the BPF objects, by the name that answers give them.
func loadObjects() map[string]func() (*ebpf.CollectionSpec, error) {
	return map[string]func() (*ebpf.CollectionSpec, error){"synspy": bpf.LoadSynspy,
		"sampler": bpf.LoadSampler,
		"strays":  bpf.LoadStrays, "shortage": bpf.LoadShortage}
}
