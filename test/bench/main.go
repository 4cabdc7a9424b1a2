// SPDX-License-Identifier: Apache-2.0

// Command bench measures what synspy costs, side by side with nothing attached
// and with the bpftrace script that does most of the same job: in a virtual
// machine with one of Debian's kernels, where both attach to functions, and on
// this machine's own kernel, whatever backend that allows. A program that does
// nothing ("bench empty") shows what attaching to the function itself takes. It
// ends with a table and a verdict on each of the project's targets, and exits 1
// if one is missed.
//
// make bench builds what it needs and runs it. Both machines run the same
// measurement (measure.go): this program again, as "bench measure".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/test/churn"
)

// errMissed says that a target of the project is missed.
var errMissed = errors.New("a target is missed")

func main() {
	if server.HelperMain() || churn.Main() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch verb, args := args[0], args[1:]; verb {
		case "measure":
			return runMeasure(ctx, args, stderr)
		case "empty":
			return runEmpty(ctx, stdout)
		case "empties":
			return runEmpties(ctx, args, stdout)
		case "instructions":
			return runInstructions(ctx, args, stdout, stderr)
		case "count":
			return runCount(ctx, args, stderr)
		case "requests":
			return runRequests(ctx, args, stdout, stderr)
		case "idle":
			return runIdle(ctx, stdout)
		case "serve":
			return runServe(ctx, args)
		case "scale":
			return runScale(ctx, args, stdout, stderr)
		case "report":
			return runReport(args, stdout, stderr)
		}
	}
	return runAll(ctx, args, stdout, stderr)
}

// runMeasure measures on this machine.
func runMeasure(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench measure", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var c config
	where := flags.String("where", "here", "`name` of this machine in results")
	out := flags.String("out", "bench.ndjson", "append results to this `file`")
	port := flags.Uint("port", 8080, "listen here")
	flags.StringVar(&c.synspy, "synspy", "bin/synspy", "`path` of synspy")
	flags.StringVar(&c.peer, "peer", "", "`path` of the bpftrace script, or nothing")
	c.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	c.port = uint16(*port)
	file, err := os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	err = measure(ctx, c, recorder{file: file, where: *where}, stderr)
	return errors.Join(err, file.Close())
}

// addFlags defines what is passed on to both machines.
func (c *config) addFlags(flags *flag.FlagSet) {
	flags.IntVar(&c.pairs, "pairs", 10, "interleaved pairs, without and with each tracer")
	flags.IntVar(&c.floods, "floods", 2, "floods for each tracer")
	flags.DurationVar(&c.budget, "budget", 14*time.Minute, "begin no further pair in the virtual machine after this time, and here after a quarter of it")
}

// runReport prints the tables of an earlier run.
func runReport(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench report", flag.ContinueOnError)
	flags.SetOutput(stderr)
	in := flags.String("in", "bin/bench.ndjson", "results, as a run keeps them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return report(*in, stdout)
}

// report prints the tables of a file of results, then the verdict.
func report(path string, stdout io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read results: %w", err)
	}
	defer file.Close()
	all, err := readResults(file)
	if err != nil {
		return err
	}
	return render(stdout, all)
}
