package main

import (
	"context"
	"errors"
	"fmt"
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
		Use:   "run SCENARIO|all",
		Short: "Play a scenario with a trace attached; exit 1 when anything differs",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			names := []string{"all"}
			for _, s := range app.Scenarios() {
				names = append(names, s.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
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
				names = names[:0]
				for _, s := range app.Scenarios() {
					names = append(names, s.Name)
				}
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
	verdict, err := app.RunLab(ctx, name, writing.Stream(e.stdout, w), app.LabOptions{Watch: w, Progress: progress},
		output.logger(e))
	if err != nil && !errors.Is(err, app.ErrMismatch) {
		return err
	}
	return errors.Join(err, writing.Verdict(e.stdout, verdict))
}
