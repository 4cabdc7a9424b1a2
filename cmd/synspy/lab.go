// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/judge"
	"github.com/synspy/synspy/internal/session"
)

func newLab(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Reproduce each way a SYN dies, in a private namespace, and check synspy against it",
		Args:  anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
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
			for _, s := range append(judge.Scenarios(), judge.Incidents()...) {
				if _, err := fmt.Fprintf(e.stdout, "%-30s %s\n", s.Name,
					s.Title); err != nil {
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
		soak   time.Duration
	)
	cmd := &cobra.Command{
		Use:   "run SCENARIO...|all",
		Short: "Play scenarios with a trace attached; exit 1 when anything differs",
		Long: `Play a scenario in a private network namespace with a trace attached, and compare what was done to
the packets with the records, the counts and the kernel's own counters. Exit code 1 when anything differs.

Several, or all, are played under one trace of the whole machine; each gets a verdict, and one that failed its records.
Those called diagnose-… make a listener's trouble instead, and show the diagnosis that it leads to; all leaves them out.
With --soak they are played shuffled, two at a time, again and again for that long.`,
		ValidArgsFunction: fixedArgs(slices.Concat([]string{"all"}, scenarioNames(),
			namesOf(judge.Incidents()))),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 1 && slices.Contains(args, "all") {
				return usage("lab run takes scenarios, or all\nsynspy lab list shows them")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := watch.watch(e)
			if err != nil {
				return err
			}
			switch {
			case soak < 0:
				return usage("--soak takes how long to play: 5m")
			case len(args) == 1 && judge.IsIncident(args[0]) && soak == 0:
				return runIncident(cmd.Context(), e, args[0], w, &output)
			case slices.ContainsFunc(args, judge.IsIncident):
				return usage("what is to be diagnosed is played alone: one diagnose scenario at a time")
			case len(args) == 1 && args[0] != "all" && soak == 0:
				return runScenario(cmd.Context(), e, args[0], w, &output)
			case args[0] == "all":
				args = scenarioNames()
			}
			return runScenarios(cmd.Context(), e,
				judge.LabRun{Names: args, Soak: soak, Status: e.stderr}, w, &output)
		},
	}
	watch.addBackend(cmd)
	watch.rate, watch.ring = 0, cli.LabRingSize
	cmd.Flags().DurationVar(&soak, "soak", 0, "play for this long, shuffled and two at a time")
	output.add(cmd)
	return cmd
}

func scenarioNames() []string { return namesOf(judge.Scenarios()) }

func namesOf(list []judge.Scenario) (names []string) {
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

// progressTo writes what is done, and when since now.
func progressTo(to io.Writer) func(format string, args ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		_, _ = fmt.Fprintf(to, "%6.2fs  %s\n", time.Since(began).Seconds(),
			fmt.Sprintf(format, args...))
	}
}

// runIncident shows on standard error what is done, and on standard output the report that
// it leads to.
func runIncident(ctx context.Context, e env, name string, w session.Watch,
	output *outputFlags) error {
	writing, err := output.writing(e)
	if err != nil {
		return err
	}
	stdout := &untilClosed{to: e.stdout}
	verdict, err := judge.RunIncident(ctx, name,
		judge.LabOptions{Watch: w, Progress: progressTo(e.stderr)}, e.stderr, output.logger(
			e))
	if verdict.Name == "" { // it came to none
		return err
	}
	return errors.Join(err, judge.WriteIncident(writing, stdout, verdict))
}

// runScenario shows what the scenario does on standard error, and its records
// and verdict on standard output.
func runScenario(ctx context.Context, e env, name string, w session.Watch,
	output *outputFlags) error {
	writing, err := output.writing(e)
	if err != nil {
		return err
	}
	stdout := &untilClosed{to: e.stdout}
	verdict, err := judge.RunLab(ctx, name, writing.Stream(stdout, w.Rate),
		judge.LabOptions{Watch: w, Progress: progressTo(e.stderr)},
		output.logger(e))
	if verdict.Name == "" { // it came to none
		return err
	}
	return errors.Join(err, judge.WriteVerdict(writing, stdout, verdict))
}

// runScenarios plays many under one trace.
func runScenarios(ctx context.Context, e env, run judge.LabRun, w session.Watch,
	output *outputFlags) error {
	writing, err := output.writing(e)
	if err != nil {
		return err
	}
	stdout := &untilClosed{to: e.stdout}
	tally := struct{ passed, failed, none int }{}
	run.Each = func(judged judge.Judged) error {
		switch {
		case judged.Cannot != "":
			tally.none++
		case judged.Passed:
			tally.passed++
		default:
			tally.failed++
		}
		return judge.WriteJudged(writing, stdout, judged)
	}
	summary, err := judge.RunLabTogether(ctx, run, w, output.logger(e))
	if err != nil && !errors.Is(err, judge.ErrMismatch) {
		return err
	}
	_, _ = fmt.Fprintf(e.stderr,
		"synspy: %d passed, %d failed, %d that this kernel cannot hold\n", tally.passed, tally.failed, tally.none)
	return errors.Join(err, writing.Stream(stdout, w.Rate).Summary(summary))
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
