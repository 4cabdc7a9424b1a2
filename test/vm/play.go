// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// play has a backend play scenarios under one trace and enters a square for each.
func (d *driver) play(backend string, scenarios []string) error {
	if len(scenarios) == 0 {
		return nil
	}
	var output bytes.Buffer
	command := append(append([]string{guestSynspy, "lab", "run"}, scenarios...), "--backend",
		backend, "-o", "json")
	limit := d.options.cellTimeout + time.Duration(len(scenarios))*perScenario
	ended, err := d.vm.run(withTimeout(limit, shellCommand(command)), &output)
	played := playedIn(output.Bytes())
	for _, name := range scenarios {
		c := cell{kernel: d.run.kernel.name, name: name, backend: backend}
		one, ok := played[name]
		switch {
		case err != nil && !ok:
			c.output = output.Bytes()
		case !ok: // the whole run ended early, with this status
			c.output = bytes.Clone(output.Bytes())
			c.judge(max(ended.status, exitFailed), d.run.kernel)
		default:
			c.took, c.output, c.reason = one.took, one.output, one.cannot
			c.judge(one.status, d.run.kernel)
		}
		if err := d.add(c); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("play scenarios (%s): %w", backend, err)
	}
	if failed := cellsOf(d.run.cells, backend, failed); ended.status != 0 && failed == 0 {
		c := cell{kernel: d.run.kernel.name, name: "(ledger)", backend: backend,
			output: output.Bytes()}
		return d.add(c) // every scenario passed, and the whole did not
	}
	return nil
}

// perScenario is how long a scenario may take on an emulated machine, on average.
const perScenario = 20 * time.Second

// played is what synspy lab run says of one scenario.
type played struct {
	status int
	took   time.Duration
	cannot string // why it is not to be had here: the kernel lacks something, or does not tell
	output []byte // its verdict, and the records that follow it
}

// playedIn reads the verdicts in the output of synspy lab run -o json.
func playedIn(output []byte) map[string]played {
	all := map[string]played{}
	var last string
	for line := range bytes.Lines(output) {
		var record struct {
			Type       string
			Name       string
			Passed     bool
			Cannot     string
			DurationMs int64 `json:"duration_ms"`
		}
		if json.Unmarshal(line, &record) != nil {
			continue
		}
		switch record.Type {
		case "scenario":
			last = record.Name
			p := played{status: exitFailed,
				took: time.Duration(record.DurationMs) * time.Millisecond}
			if record.Passed {
				p.status = 0
			} else if record.Cannot != "" {
				p.status, p.cannot = exitCannot, record.Cannot
			}
			p.output = bytes.Clone(line)
			all[last] = p
		case "drop", "cookie":
			if p, ok := all[last]; ok && p.status == exitFailed {
				p.output = append(p.output, line...)
				all[last] = p
			}
		}
	}
	return all
}

// cellsOf counts a backend's squares with this verdict.
func cellsOf(cells []cell, backend string, v verdict) int {
	n := 0
	for _, c := range cells {
		if c.backend == backend && c.verdict == v {
			n++
		}
	}
	return n
}
