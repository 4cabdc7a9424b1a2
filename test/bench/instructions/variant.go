// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/test/bench/tracer"
)

// variant is one way to trace that instructions are counted for.
type variant struct {
	tracer.Tracer
	verb    string
	backend string // empty where the verb has none
	base    bool   // the synspy to compare with
	only    func(operation) bool
}

// countingVerbs lists them as a table has them.
var countingVerbs = []string{tracer.VerbTrace, tracer.VerbTraceAll, tracer.VerbDiagnose, tracer.VerbEmpty, tracer.VerbScript}

// countingBackends lists the backends that a 6.12 has.
var countingBackends = []string{"trampoline", "kprobe", "tracepoint"}

func anyOperation(operation) bool { return true }

// variants lists what to count for: verb by verb, so that what the empty programs mirror is
// known by then.
func (c *countConfig) variants() []variant {
	var all []variant
	for _, verb := range countingVerbs {
		if !c.wants(verb) {
			continue
		}
		if verb == tracer.VerbScript {
			if c.peer != "" {
				all = append(all, variant{verb: verb, only: anyOperation,
					Tracer: tracer.Tracer{Name: verb, Argv: []string{"bpftrace", c.peer}, Ready: "READY"}})
			}
			continue
		}
		for _, backend := range c.backends {
			v := c.variant(verb, backend)
			all = append(all, v)
			if c.base != "" && slices.Contains(guardedVerbs, verb) {
				v.Argv, v.Name, v.base = append([]string{c.base}, v.Argv[1:]...), v.Name+" (base)", true
				all = append(all, v)
			}
		}
	}
	return all
}

func (c *countConfig) variant(verb, backend string) variant {
	v := variant{verb: verb, backend: backend, only: anyOperation}
	v.Name = verb + "/" + backend
	switch verb {
	case tracer.VerbTrace:
		v.Argv = []string{c.synspy, "trace", "--backend", backend}
		v.Ready = "synspy: watching on"
	case tracer.VerbTraceAll:
		v.Argv = []string{c.synspy, "trace", "--backend", backend, "--rate", "0", "-o", "json"}
		v.Ready = "synspy: watching on"
		v.only = operation.dropped
	case tracer.VerbDiagnose:
		ports := fmt.Sprintf("%d,%d", c.port, c.port+1)
		v.Argv = []string{c.synspy, "diagnose", "--backend", backend, "--port", ports, "--duration", "24h"}
		v.Ready = "synspy: 1s of"
	case tracer.VerbEmpty:
		v.Argv = []string{c.self, "empties", tracer.PlacesFile(backend)}
		v.Ready = "READY"
	}
	return v
}

// guardedVerbs are those of synspy itself.
var guardedVerbs = []string{tracer.VerbTrace, tracer.VerbTraceAll, tracer.VerbDiagnose}
