package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/app"
)

func newLab(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Reproduce each way a SYN dies, in a private namespace, and check synspy against it",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLabList(e), newLabRun(e))
	return cmd
}

func newLabList(e env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "One scenario a line",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, s := range app.Scenarios() {
				if _, err := fmt.Fprintf(e.stdout, "%-30s %s\n", s.Name, s.Title); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newLabRun(e env) *cobra.Command {
	var (
		watch  watchFlags
		output outputFlags
	)
	cmd := &cobra.Command{
		Use:               "run SCENARIO|all",
		Short:             "Play a scenario with a trace attached; exit 1 when anything differs",
		ValidArgsFunction: fixedArgs(append([]string{"all"}, scenarioNames()...)),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("lab run takes one scenario, or all\nsynspy lab list shows them")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := watch.watch()
			if err != nil {
				return err
			}
			names := []string{args[0]}
			if args[0] == "all" {
				names = scenarioNames()
			}
			var failed []error
			for _, name := range names {
				if err := runScenario(cmd.Context(), e, name, w, &output); err != nil {
					failed = append(failed, err)
				}
				if cmd.Context().Err() != nil {
					break
				}
			}
			return errors.Join(failed...)
		},
	}
	watch.addBackend(cmd)
	watch.rate, watch.ring = 0, app.LabRingSize
	output.add(cmd)
	return cmd
}

func scenarioNames() []string {
	var names []string
	for _, s := range app.Scenarios() {
		names = append(names, s.Name)
	}
	return names
}

// runScenario shows what the scenario does on standard error, and its records
// and verdict on standard output.
func runScenario(ctx context.Context, e env, name string, w app.Watch, output *outputFlags) error {
	writing, err := output.writing(e)
	if err != nil {
		return err
	}
	began := time.Now()
	progress := func(format string, args ...any) {
		_, _ = fmt.Fprintf(e.stderr, "%6.2fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	stdout := &untilClosed{to: e.stdout}
	verdict, err := app.RunLab(ctx, name, writing.Stream(stdout, w), app.LabOptions{Watch: w, Progress: progress},
		output.logger(e))
	if err != nil && !errors.Is(err, app.ErrMismatch) {
		return err
	}
	return errors.Join(err, writing.Verdict(stdout, verdict))
}

// untilClosed drops what is written after the reader has gone: a trace ends
// then, but the lab's exit code is to tell what came of the whole scenario.
type untilClosed struct {
	to     io.Writer
	closed bool
}

func (w *untilClosed) Write(b []byte) (int, error) {
	if w.closed {
		return len(b), nil
	}
	n, err := w.to.Write(b)
	if w.closed = errors.Is(err, syscall.EPIPE); w.closed {
		return len(b), nil
	}
	return n, err
}
