// SPDX-License-Identifier: Apache-2.0

package facts

// Sizes are how many rows the tables have. What is over them has a row of its own.
type Sizes struct {
	Late     bool   // rows are made on first use
	Openings uint32 // namespaces
	Bases    uint32 // namespaces and CPUs with a past
	Tallies  uint32 // namespaces and CPUs in which something moved
	Withheld uint32 // namespaces and outcomes that filters keep out
	Counts   uint32 // listeners and outcomes
	Arrived  uint32 // listeners
	Accepts  uint32 // listeners from which connections are accepted
	Wanted   uint32 // listeners that owner filters were asked about
}

// SizesFor chooses them. Since 6.1 memory for rows comes from the BPF allocator ("bpf: Remove
// tracing program restriction on map types", 96da3f7d489d), so that large tables cost nothing until
// they are needed: all of the following are 64 MiB when 10,000 namespaces and 100,000 listeners are
// busy, on 128 CPUs. Before, a tracing program must find its rows already made; with kprobes and
// raw tracepoints the kernel warns, or, with PREEMPT_RT, refuses.
func SizesFor(facts *Facts, cpus int) Sizes {
	if facts.FewRows != nil {
		return *facts.FewRows
	}
	if facts.LateRows {
		return Sizes{Late: true, Openings: 1 << 16, Bases: 1 << 16, Tallies: 1 << 15,
			Withheld: 1 << 14, Counts: 1 << 16,
			Arrived: 1 << 17, Accepts: 1 << 14, Wanted: 1 << 17}
	}
	byCPU := func(most int) uint32 { return uint32(min(max(512*cpus, 1<<12), most)) }
	return Sizes{Openings: 1 << 14, Bases: byCPU(1 << 16), Tallies: byCPU(1 << 14),
		Withheld: 1 << 12, Counts: 1 << 14,
		Arrived: 1 << 15, Accepts: 1 << 14, Wanted: 1 << 14}
}
