// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synspy/synspy/test/bench/tracer"
)

// keptFile is the committed file, seen from here.
const keptFile = "../costs.json"

// guarded is a run that counted this for one figure, and for the base if that is not 0.
func guarded(versions builds, added, base float64) *instructions {
	boot := &counting{Counted: []counted{
		{Verb: tracer.VerbUntraced, Operation: "connection", Median: 35_000},
		{Verb: tracer.VerbTrace, Backend: "kprobe", Operation: "connection", Median: 35_000 + added},
		{Verb: tracer.VerbEmpty, Backend: "kprobe", Operation: "connection", Median: 36_000},
	}}
	if base != 0 {
		boot.Counted = append(boot.Counted, counted{Verb: tracer.VerbTrace, Backend: "kprobe", Base: true, Operation: "connection", Median: 35_000 + base})
	}
	return &instructions{Builds: versions, Boots: []*counting{boot}}
}

func TestGuard(t *testing.T) {
	here, elsewhere := builds{"6.12", "19", "7"}, builds{"6.12", "19", "8"}
	kept := func(spread float64) *keptCosts {
		return &keptCosts{Builds: here, Costs: []keptCost{{tracer.VerbTrace, "kprobe", "connection", 5000, spread}}}
	}
	for _, tt := range []struct {
		name   string
		all    *instructions
		spread float64
		dearer bool
	}{
		{"the same", guarded(here, 5000, 0), 1, false},
		{"within a fiftieth", guarded(here, 5099, 0), 1, false},
		{"beyond it", guarded(here, 5101, 0), 1, true},
		{"within three spreads", guarded(here, 5199, 0), 70, false},
		{"beyond them", guarded(here, 5211, 0), 70, true},
		{"cheaper", guarded(here, 3000, 0), 1, false},
		{"another build, as dear as the base", guarded(elsewhere, 7050, 7000), 1, false},
		{"another build, dearer than the base", guarded(elsewhere, 7150, 7000), 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changes, err := tt.all.changes(kept(tt.spread))
			if err != nil || len(changes) != 1 {
				t.Fatalf("%d changes, %v", len(changes), err)
			}
			var out strings.Builder
			if err := renderChanges(&out, changes); errors.Is(err, errDearer) != tt.dearer {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
	if _, err := guarded(elsewhere, 5000, 0).changes(kept(1)); err == nil {
		t.Error("compared with nothing")
	}
}

// What was dearer once only is chance; what is so twice is not.
func TestCheaperOf(t *testing.T) {
	chance, rise := cost{verb: tracer.VerbTrace, operation: "udp"}, cost{verb: tracer.VerbTrace, operation: "connection"}
	got := cheaperOf([]change{{chance, 100, 200, 30}, {rise, 100, 200, 30}}, []change{{rise, 100, 190, 30}, {chance, 100, 101, 30}})
	if got[0].dearer() || !got[1].dearer() || got[1].after != 190 {
		t.Errorf("%+v", got)
	}
}

// A small figure rises by an instruction or two for no reason.
func TestGuardOfSmallFigures(t *testing.T) {
	if got := allowedRise(3, 0); got != allowedSpreads*leastSpread {
		t.Errorf("3 may rise by %v", got)
	}
}

func TestKeepAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), keptFile)
	all := guarded(builds{"6.12", "19", "7"}, 5000.26, 0)
	if err := all.keep(path); err != nil {
		t.Fatal(err)
	}
	kept, err := readKept(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(kept.Costs) != 1 || kept.Costs[0] != (keptCost{tracer.VerbTrace, "kprobe", "connection", 5000.3, 0}) || kept.Builds != all.Builds {
		t.Errorf("kept %+v", kept)
	}
}

// Every figure that is guarded stands in the committed file, and nothing else.
func TestKeptFile(t *testing.T) {
	kept, err := readKept(keptFile)
	if err != nil {
		t.Fatal(err)
	}
	stands := make(map[cost]bool)
	for _, k := range kept.Costs {
		stands[k.cost()] = true
	}
	c := countConfig{verbs: guardedVerbs, backends: countingBackends}
	for _, v := range c.variants() {
		for _, o := range operations {
			key := cost{verb: v.verb, backend: v.backend, operation: o.name}
			if v.only(o) && !stands[key] {
				t.Errorf("no figure for %s, %s, %s", key.verb, key.backend, key.operation)
			}
			delete(stands, key)
		}
	}
	for key := range stands {
		t.Errorf("a figure for %s, %s, %s, which is not counted", key.verb, key.backend, key.operation)
	}
}
