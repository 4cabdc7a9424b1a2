// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
)

// variant is one way to trace that instructions are counted for.
type variant struct {
	tracer
	verb    string
	backend string // empty where the verb has none
	base    bool   // the synspy to compare with
	only    func(operation) bool
}

// Verbs of variants.
const (
	verbUntraced = "untraced"
	verbTrace    = "trace"
	verbTraceAll = "trace-all" // --rate 0: a record for each drop
	verbDiagnose = "diagnose"
	verbEmpty    = "empty"
	verbScript   = "script"
)

// countingVerbs lists them as a table has them.
var countingVerbs = []string{verbTrace, verbTraceAll, verbDiagnose, verbEmpty, verbScript}

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
		if verb == verbScript {
			if c.peer != "" {
				all = append(all, variant{verb: verb, only: anyOperation,
					tracer: tracer{name: verb, argv: []string{"bpftrace", c.peer}, ready: "READY"}})
			}
			continue
		}
		for _, backend := range c.backends {
			v := c.variant(verb, backend)
			all = append(all, v)
			if c.base != "" && slices.Contains(guardedVerbs, verb) {
				v.argv, v.name, v.base = append([]string{c.base}, v.argv[1:]...), v.name+" (base)", true
				all = append(all, v)
			}
		}
	}
	return all
}

func (c *countConfig) variant(verb, backend string) variant {
	v := variant{verb: verb, backend: backend, only: anyOperation}
	v.name = verb + "/" + backend
	switch verb {
	case verbTrace:
		v.argv = []string{c.synspy, "trace", "--backend", backend}
		v.ready = "synspy: watching on"
	case verbTraceAll:
		v.argv = []string{c.synspy, "trace", "--backend", backend, "--rate", "0", "-o", "json"}
		v.ready = "synspy: watching on"
		v.only = operation.dropped
	case verbDiagnose:
		ports := fmt.Sprintf("%d,%d", c.port, c.port+1)
		v.argv = []string{c.synspy, "diagnose", "--backend", backend, "--port", ports, "--duration", "24h"}
		v.ready = "synspy: 1s of"
	case verbEmpty:
		v.argv = []string{c.self, "empties", placesFile(backend)}
		v.ready = "READY"
	}
	return v
}

// placesFile is where the places of a backend's programs are kept for the empty ones.
func placesFile(backend string) string { return "/run/places-" + backend }
