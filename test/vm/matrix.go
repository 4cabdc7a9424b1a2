// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// errMatrix says that the table has a failure in it.
var errMatrix = errors.New("matrix failed")

func (e env) matrix(ctx context.Context, args []string) error {
	flags := e.flagSet("matrix")
	var o matrixOptions
	var names []string
	o.vm.addFlags(flags)
	flags.Func("kernel", "`name` of a kernel, see vm kernels (repeatable; default: all; standard: those of CI, with fewer end-to-end tests)", appendTo(&names))
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
	flags.DurationVar(&o.timeout, "timeout", 30*time.Minute,
		"end a machine after this long, boot included")
	flags.DurationVar(&o.cellTimeout, "cell-timeout", 5*time.Minute,
		"end a test binary or scenario after this long")
	jobs := flags.Int("jobs", 0,
		"machines to run at a time (default: what CPUs and memory allow)")
	flags.StringVar(&o.results, "results", "", "keep what everything prints, as it ends, below this `directory`")
	docs := flags.String("docs", "", "write the results into the table in this Markdown `file`")
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
	case *docs != "" && (o.noLab || len(o.scenarios) > 0):
		return fmt.Errorf("%w: --docs is for whole runs: name no scenario", errUsage)
	}
	kernels, err := kernelsByName(names)
	if err != nil {
		return err
	}
	store, err := newStore(e.log)
	if err != nil {
		return err
	}
	o.short = slices.Equal(names, []string{standardKernels})
	if *jobs == 0 {
		if *jobs, err = machinesAtATime(o.vm.memory); err != nil {
			return err
		}
	}
	began := time.Now()
	runs := make([]kernelRun, len(kernels))
	slots := make(chan struct{}, max(1, *jobs))
	var all sync.WaitGroup
	for i, k := range kernels {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			runs[i] = e.runKernel(ctx, store, k, o)
		})
	}
	all.Wait()
	e.log.Info("matrix ran", "kernels", len(kernels), "jobs", *jobs, "seconds",
		time.Since(began).Seconds())
	if err := errors.Join(renderMatrix(e.stdout, runs),
		renderVerified(e.stdout, runs)); err != nil {
		return err
	}
	failures := printFailures(e.stdout, runs)
	if *docs != "" {
		if err := writeResults(*docs, runs); err != nil {
			return err
		}
	}
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
func (e env) tryKernel(ctx context.Context, s *store, k kernel, o matrixOptions) (run kernelRun) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout,
		fmt.Errorf("%w: the machine ran for %s", errTimeout, o.timeout))
	defer cancel()
	run.kernel = k
	began := time.Now()
	defer func() { run.took = time.Since(began) }()
	options, err := o.machine(k)
	if err != nil {
		run.err = err
		return run
	}
	machine, err := startVM(ctx, e, s, options)
	if err != nil {
		run.err = err
		return run
	}
	run.version = machine.version
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

// machine describes the machine to run on a kernel: with the programs under test
// that its architecture runs.
func (o matrixOptions) machine(k kernel) (vmOptions, error) {
	options := o.vm
	options.kernel = k
	options.files = slices.Clone(o.vm.files)
	if foreign(k.arch) { // which runs none of this machine's own programs
		options.files = slices.DeleteFunc(options.files, func(f guestFile) bool {
			return f.withLibs
		})
	}
	programs := []guestFile{}
	if !o.noLab {
		programs = append(programs, guestFile{host: o.synspy, guest: guestSynspy})
	}
	for _, t := range slices.Concat(o.tests, o.endToEnd) {
		programs = append(programs, guestFile{host: t.path, guest: guestTests + t.name})
	}
	for _, p := range programs {
		var err error
		if p.host, err = programFor(p.host, k.arch); err != nil {
			return options, err
		}
		options.files = append(options.files, p)
	}
	return options, nil
}
