// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// matrixOptions is what to run on every kernel.
type matrixOptions struct {
	vm          vmOptions
	synspy      string
	noLab       bool
	scenarios   []string // none: every one that synspy lab list names
	tests       []testBinary
	endToEnd    []testBinary  // run once per backend
	endToEndRun string        // of their tests, those that match
	timeout     time.Duration // for a machine
	cellTimeout time.Duration // for one test binary or scenario
}

// testBinary is what go test -c made.
type testBinary struct{ name, path string }

// Where the guest finds what is under test.
const (
	guestSynspy = "/usr/bin/synspy"
	guestTests  = "/opt/test/"
)

// cell is one square of the table.
type cell struct {
	kernel  string
	name    string // of a scenario or test binary
	backend string // testColumn for a test binary
	passed  bool
	skipped int // tests that a passing test binary skipped
	took    time.Duration
	output  []byte
}

// testColumn is the column of things that choose no backend.
const testColumn = "test"

// errMatrix says that the table has a failure in it.
var errMatrix = errors.New("matrix failed")

// kernelRun is all that happened on one kernel.
type kernelRun struct {
	kernel string
	boot   time.Duration
	cells  []cell
	err    error // what kept the kernel from being tested in full
}

func (e env) matrix(ctx context.Context, args []string) error {
	flags := e.flagSet("matrix")
	var o matrixOptions
	var names []string
	o.vm.addFlags(flags)
	flags.Func("kernel", "`name` of a kernel, see vm kernels (repeatable; default: 6.1, 6.12 and newest)", appendTo(&names))
	flags.StringVar(&o.synspy, "synspy", "", "`path` of the synspy program, static")
	flags.BoolVar(&o.noLab, "no-lab", false, "run test binaries only")
	flags.Func("scenario", "`pattern` of lab scenario names (repeatable; default: all of them)", appendTo(&o.scenarios))
	flags.Func("test-binary", "run `NAME=PATH`, made by go test -c, as root (repeatable)", func(value string) error {
		name, path, err := splitPair(value, "=")
		o.tests = append(o.tests, testBinary{name: name, path: path})
		return err
	})
	flags.Func("end-to-end", "run `NAME=PATH`, made by go test -c, once per backend against synspy (repeatable)", func(value string) error {
		name, path, err := splitPair(value, "=")
		o.endToEnd = append(o.endToEnd, testBinary{name: name, path: path})
		return err
	})
	flags.StringVar(&o.endToEndRun, "end-to-end-run", ".", "run only their tests that match this `regexp`")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "end a machine after this long, boot included")
	flags.DurationVar(&o.cellTimeout, "cell-timeout", 5*time.Minute, "end a test binary or scenario after this long")
	jobs := flags.Int("jobs", 1, "machines to run at a time")
	if err := parse(flags, args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	case o.noLab && len(o.tests) == 0:
		return fmt.Errorf("%w: nothing to run: --no-lab without --test-binary", errUsage)
	case !o.noLab && o.synspy == "":
		return fmt.Errorf("%w: --synspy is needed (or --no-lab)", errUsage)
	}
	kernels, err := kernelsByName(names)
	if err != nil {
		return err
	}
	store, err := newStore(e.log)
	if err != nil {
		return err
	}
	runs := make([]kernelRun, len(kernels))
	slots := make(chan struct{}, max(1, *jobs))
	var all sync.WaitGroup
	for i, k := range kernels {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			runs[i] = e.runKernel(ctx, store, k, o)
		})
	}
	all.Wait()
	if err := renderMatrix(e.stdout, runs); err != nil {
		return err
	}
	failures := printFailures(e.stdout, runs)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errMatrix, context.Cause(ctx))
	case failures > 0:
		return fmt.Errorf("%w: failures: %d", errMatrix, failures)
	}
	return nil
}

func appendTo(list *[]string) func(string) error {
	return func(value string) error {
		*list = append(*list, value)
		return nil
	}
}

// runKernel starts over once where the emulator, and not the kernel, failed.
func (e env) runKernel(ctx context.Context, s *store, k kernel, o matrixOptions) kernelRun {
	run := e.tryKernel(ctx, s, k, o)
	if errors.Is(run.err, errEmulator) {
		e.log.Warn("starting over", "kernel", k.name, "reason", run.err)
		run = e.tryKernel(ctx, s, k, o)
	}
	return run
}

// tryKernel does everything there is to do on one kernel, in one machine.
func (e env) tryKernel(ctx context.Context, s *store, k kernel, o matrixOptions) kernelRun {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("%w: the machine ran for %s", errTimeout, o.timeout))
	defer cancel()
	run := kernelRun{kernel: k.name}
	options := o.vm
	options.kernel = k
	options.files = append([]guestFile(nil), o.vm.files...)
	if !o.noLab {
		options.files = append(options.files, guestFile{host: o.synspy, guest: guestSynspy})
	}
	for _, t := range slices.Concat(o.tests, o.endToEnd) {
		options.files = append(options.files, guestFile{host: t.path, guest: guestTests + t.name})
	}
	machine, err := startVM(ctx, e, s, options)
	if err != nil {
		run.err = err
		return run
	}
	run.boot = machine.boot
	driver := &driver{vm: machine, options: o, run: &run}
	if err := driver.all(); err != nil {
		if errors.Is(err, errGuest) {
			err = machine.fail(ctx, err)
		} else {
			machine.stop()
		}
		run.err = err
		return run
	}
	machine.stop()
	return run
}

// driver sends one kernel's work to its guest.
type driver struct {
	vm      *vm
	options matrixOptions
	run     *kernelRun
}

func (d *driver) all() error {
	for _, t := range d.options.tests {
		// Its own directory, as go test has it, though without the package's files.
		script := "mkdir -p /tmp/test && cd /tmp/test && " +
			withTimeout(d.options.cellTimeout, shellCommand([]string{guestTests + t.name, "-test.v"}))
		if err := d.cell(t.name, testColumn, script); err != nil {
			return err
		}
	}
	if d.options.noLab {
		return nil
	}
	backends, err := d.backends()
	if err != nil {
		return err
	}
	scenarios, err := d.scenarios()
	if err != nil {
		return err
	}
	for _, backend := range backends {
		for _, t := range d.options.endToEnd {
			script := "mkdir -p /tmp/test && cd /tmp/test && SYNSPY=" + guestSynspy + " SYNSPY_BACKEND=" + backend + " " +
				withTimeout(d.options.cellTimeout, shellCommand([]string{guestTests + t.name, "-test.v", "-test.short",
					"-test.run", d.options.endToEndRun}))
			if err := d.cell(t.name, backend, script); err != nil {
				return err
			}
		}
		for _, scenario := range scenarios {
			command := shellCommand([]string{guestSynspy, "lab", "run", scenario, "--backend", backend, "-o", "json"})
			if err := d.cell(scenario, backend, withTimeout(d.options.cellTimeout, command)); err != nil {
				return err
			}
		}
	}
	return nil
}

// cell runs one thing. It fails the cell, not the kernel, unless the guest dies.
func (d *driver) cell(name, backend, script string) error {
	var output bytes.Buffer
	ended, err := d.vm.run(script, &output)
	c := cell{
		kernel: d.run.kernel, name: name, backend: backend,
		passed: err == nil && ended.status == 0, took: ended.took, output: output.Bytes(),
	}
	if bytes.HasPrefix(c.output, []byte("=== RUN")) || backend == testColumn {
		c.skipped = bytes.Count(c.output, []byte("--- SKIP: "))
		c.passed = c.passed && !bytes.Contains(c.output, []byte("testing: warning: no tests to run"))
	}
	if err == nil && ended.status != 0 {
		c.output = fmt.Appendf(c.output, "\nexit status %d\n", ended.status)
	}
	d.run.cells = append(d.run.cells, c)
	d.vm.log.Info("ran", "name", name, "backend", backend, "passed", c.passed, "seconds", c.took.Seconds())
	if err != nil {
		return fmt.Errorf("run %s (%s): %w", name, backend, err)
	}
	return nil
}

// backends asks synspy which of its backends this kernel allows.
func (d *driver) backends() ([]string, error) {
	var report bytes.Buffer
	command := withTimeout(d.options.cellTimeout, shellCommand([]string{guestSynspy, "check", "-o", "json"}))
	// The status tells of all hooks together, so it decides nothing here.
	if _, err := d.vm.run(command+" 2>/run/check.err", &report); err != nil {
		return nil, fmt.Errorf("run synspy check: %w", err)
	}
	backends := availableBackends(report.Bytes())
	if len(backends) == 0 {
		if _, err := d.vm.run("cat /run/check.err", &report); err != nil {
			return nil, fmt.Errorf("read synspy check: %w", err)
		}
		return nil, fmt.Errorf("no scenario ran: synspy check reports no backend:\n%s", bytes.TrimSpace(report.Bytes()))
	}
	return backends, nil
}

// scenarios asks synspy for its scenarios, and keeps those that were asked for.
func (d *driver) scenarios() ([]string, error) {
	var list bytes.Buffer
	listed, err := d.vm.run(withTimeout(d.options.cellTimeout, shellCommand([]string{guestSynspy, "lab", "list"})), &list)
	if err != nil {
		return nil, fmt.Errorf("run synspy lab list: %w", err)
	}
	if listed.status != 0 {
		return nil, fmt.Errorf("no scenario ran: synspy lab list exits with %d:\n%s", listed.status, bytes.TrimSpace(list.Bytes()))
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
		if fields := strings.Fields(line); len(fields) > 0 {
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
