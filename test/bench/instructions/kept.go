// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// keptCosts is the committed file of what synspy adds, which no change may raise unseen.
type keptCosts struct {
	Builds builds     `json:"builds"`
	Costs  []keptCost `json:"costs"`
}

// keptCost is one figure: instructions added to an operation.
type keptCost struct {
	Verb      string  `json:"verb"`
	Backend   string  `json:"backend"`
	Operation string  `json:"operation"`
	Added     float64 `json:"added"`
	Spread    float64 `json:"spread"` // between machines booted one after another
}

func (k keptCost) cost() cost { return cost{verb: k.Verb, backend: k.Backend, operation: k.Operation} }

// keep writes the figures of synspy's own verbs, in the order of the tables.
func (all *instructions) keep(path string) error {
	kept := keptCosts{Builds: all.Builds}
	costs := all.costs()
	for _, verb := range guardedVerbs {
		for _, backend := range countingBackends {
			for _, o := range operations {
				if f, ok := costs[cost{verb: verb, backend: backend, operation: o.name}]; ok {
					kept.Costs = append(kept.Costs, keptCost{verb, backend, o.name, tenth(f.value), tenth(f.spread)})
				}
			}
		}
	}
	// A line for each figure: a change shows what it changes.
	lines := make([]string, 0, len(kept.Costs))
	for _, c := range kept.Costs {
		line, err := json.Marshal(c)
		if err != nil {
			return err
		}
		lines = append(lines, "  "+string(line))
	}
	head, err := json.Marshal(kept.Builds)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("{\n \"builds\": %s,\n \"costs\": [\n%s\n ]\n}\n", head, strings.Join(lines, ",\n"))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("keep costs: %w", err)
	}
	return nil
}

func readKept(path string) (*keptCosts, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read costs: %w", err)
	}
	var kept keptCosts
	if err := json.Unmarshal(content, &kept); err != nil {
		return nil, fmt.Errorf("read costs in %s: %w", path, err)
	}
	return &kept, nil
}

// spreadOf is that of a figure in the file: what is compared with another tree is as exact.
func (k *keptCosts) spreadOf(c cost) float64 {
	c.base = false
	if i := slices.IndexFunc(k.Costs, func(kept keptCost) bool { return kept.cost() == c }); i >= 0 {
		return k.Costs[i].Spread
	}
	return 0
}
