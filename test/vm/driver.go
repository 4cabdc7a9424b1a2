// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// driver sends one kernel's work to its guest.
type driver struct {
	vm      *vm
	options matrixOptions
	run     *kernelRun
}

// shortEndToEnd are the end-to-end tests of slow kernels: packets, and their owners.
const shortEndToEnd = "TestTUN|TestOwners"

func (d *driver) all() error {
	for _, t := range d.options.tests {
		// Its own directory, as go test has it, though without the package's files.
		script := "mkdir -p /tmp/test && cd /tmp/test && " +
			withTimeout(d.options.cellTimeout,
				shellCommand([]string{guestTests + t.name, "-test.v"}))
		if err := d.cell(t.name, testColumn, script); err != nil {
			return err
		}
	}
	if d.options.noLab {
		return nil
	}
	report, err := d.check()
	if err != nil {
		return err
	}
	scenarios, err := d.scenarios()
	if err != nil {
		return err
	}
	available := availableBackends(report)
	for _, backend := range d.backends() {
		if slices.Contains(available, backend) {
			err = d.backend(backend, scenarios)
		} else {
			d.missing(backend, scenarios, report)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// backends lists those that play the scenarios.
func (d *driver) backends() []string {
	return slices.DeleteFunc(slices.Clone(allBackends), func(backend string) bool {
		return d.options.short && backend == d.run.kernel.spared
	})
}

// backend runs everything there is for a backend that this kernel allows.
func (d *driver) backend(backend string, scenarios []string) error {
	tests := d.options.endToEndRun
	if d.options.short && d.run.kernel.slow {
		tests = shortEndToEnd
	}
	for _, t := range d.endToEnd(backend) {
		script := "mkdir -p /tmp/test && cd /tmp/test && SYNSPY=" + guestSynspy +
			" SYNSPY_BACKEND=" + backend + " " +
			d.without() + withTimeout(d.options.cellTimeout,
			shellCommand([]string{guestTests + t.name, "-test.v", "-test.short",
				"-test.run", tests}))
		if err := d.cell(t.name, backend, script); err != nil {
			return err
		}
	}
	return d.play(backend, scenarios)
}

// missing fills the squares of a backend that synspy check says this kernel
// lacks. Where the table of kernels does not expect that, it is a failure.
func (d *driver) missing(backend string, scenarios []string, report []byte) {
	c := cell{kernel: d.run.kernel.name, backend: backend, verdict: cannot,
		reason: d.run.kernel.reason("", backend)}
	if c.reason == "" {
		c.name, c.verdict = "(backend)", failed
		c.output = fmt.Appendf(nil, "synspy check: %s", backendDetail(report, backend))
		d.run.cells = append(d.run.cells, c)
		return
	}
	for _, t := range d.endToEnd(backend) {
		c.name = t.name
		d.run.cells = append(d.run.cells, c)
	}
	for _, c.name = range scenarios {
		d.run.cells = append(d.run.cells, c)
	}
}

// endToEnd lists the end-to-end tests that run with the backend.
func (d *driver) endToEnd(backend string) []testBinary {
	if !d.options.short || d.run.kernel.standard == backend {
		return d.options.endToEnd
	}
	return nil
}

// without says to end-to-end tests what a guest of another architecture lacks: the
// programs of this machine.
func (d *driver) without() string {
	if foreign(d.run.kernel.arch) {
		return "SYNSPY_E2E_WITHOUT=tcpdump "
	}
	return ""
}

// cell runs one thing. It fails the cell, not the kernel, unless the guest dies.
func (d *driver) cell(name, backend, script string) error {
	var output bytes.Buffer
	ended, err := d.vm.run(script, &output)
	c := cell{kernel: d.run.kernel.name, name: name, backend: backend, took: ended.took,
		output: output.Bytes()}
	if err == nil {
		c.judge(ended.status, d.run.kernel)
	}
	if bytes.HasPrefix(c.output, []byte("=== RUN")) || backend == testColumn {
		c.skipped = bytes.Count(c.output, []byte("--- SKIP: "))
		if bytes.Contains(c.output, []byte("testing: warning: no tests to run")) {
			c.verdict = failed
		}
	}
	if err := errors.Join(err, d.add(c)); err != nil {
		return fmt.Errorf("run %s (%s): %w", name, backend, err)
	}
	return nil
}

// add enters a square.
func (d *driver) add(c cell) error {
	d.run.cells = append(d.run.cells, c)
	d.vm.log.Info("ran", "name", c.name, "backend", c.backend, "verdict", c.verdict, "seconds",
		c.took.Seconds())
	if d.options.results == "" {
		return nil
	}
	return c.keep(d.options.results)
}

// check asks synspy what this kernel allows.
func (d *driver) check() ([]byte, error) {
	var report bytes.Buffer
	command := withTimeout(d.options.cellTimeout,
		shellCommand([]string{guestSynspy, "check", "-o", "json"}))
	// The status tells of all hooks together, so it decides nothing here.
	if _, err := d.vm.run(command+" 2>/run/check.err", &report); err != nil {
		return nil, fmt.Errorf("run synspy check: %w", err)
	}
	if len(availableBackends(report.Bytes())) == 0 {
		if _, err := d.vm.run("cat /run/check.err", &report); err != nil {
			return nil, fmt.Errorf("read synspy check: %w", err)
		}
		return nil, fmt.Errorf("no scenario ran: synspy check reports no backend:\n%s",
			bytes.TrimSpace(report.Bytes()))
	}
	return report.Bytes(), nil
}

// scenarios asks synspy for its scenarios, and keeps those that were asked for.
func (d *driver) scenarios() ([]string, error) {
	var list bytes.Buffer
	listed, err := d.vm.run(withTimeout(d.options.cellTimeout,
		shellCommand([]string{guestSynspy, "lab", "list"})), &list)
	if err != nil {
		return nil, fmt.Errorf("run synspy lab list: %w", err)
	}
	if listed.status != 0 {
		return nil, fmt.Errorf("no scenario ran: synspy lab list exits with %d:\n%s",
			listed.status, bytes.TrimSpace(list.Bytes()))
	}
	scenarios, err := selectScenarios(list.String(), d.options.scenarios)
	if err != nil {
		return nil, fmt.Errorf("no scenario ran: %w", err)
	}
	return scenarios, nil
}

// selectScenarios reads scenario names, the first word of each line, and keeps
// those that a wanted pattern matches. A pattern that matches none is an error:
// it would make a passing run of nothing.
func selectScenarios(list string, wanted []string) ([]string, error) {
	var all []string
	for line := range strings.Lines(list) {
		// What is there to be diagnosed is played alone, and by the end-to-end tests.
		if fields := strings.Fields(line); len(fields) > 0 &&
			!strings.HasPrefix(fields[0], "diagnose-") {
			all = append(all, fields[0])
		}
	}
	if len(all) == 0 {
		return nil, errors.New("synspy lab list names none")
	}
	if len(wanted) == 0 {
		return all, nil
	}
	matched := map[string]bool{}
	for _, pattern := range wanted {
		found := false
		for _, name := range all {
			if ok, err := path.Match(pattern, name); err != nil {
				return nil, fmt.Errorf("match scenario %q: %w", pattern, err)
			} else if ok {
				matched[name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("synspy lab list has no scenario %q", pattern)
		}
	}
	var kept []string
	for _, name := range all {
		if matched[name] {
			kept = append(kept, name)
		}
	}
	return kept, nil
}
