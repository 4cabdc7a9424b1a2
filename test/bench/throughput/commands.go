// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// RunMeasure measures on this machine.
func RunMeasure(ctx context.Context, args []string, stderr io.Writer) error {
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

// RunReport prints the tables of an earlier run.
func RunReport(args []string, stdout, stderr io.Writer) error {
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
