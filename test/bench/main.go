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
// measurement (test/bench/throughput): this program again, as "bench measure".
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

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/test/bench/instructions"
	"github.com/synspy/synspy/test/bench/requests"
	"github.com/synspy/synspy/test/bench/throughput"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/churn"
)

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
			return throughput.RunMeasure(ctx, args, stderr)
		case "empty":
			return tracer.RunEmpty(ctx, stdout)
		case "empties":
			return tracer.RunEmpties(ctx, args, stdout)
		case "instructions":
			return instructions.Run(ctx, args, stdout, stderr)
		case "count":
			return instructions.Count(ctx, args, stderr)
		case "requests":
			return requests.Run(ctx, args, stdout, stderr)
		case "idle":
			return requests.RunIdle(ctx, stdout)
		case "serve":
			return requests.RunServe(ctx, args)
		case "scale":
			return throughput.RunScale(ctx, args, stdout, stderr)
		case "report":
			return throughput.RunReport(args, stdout, stderr)
		}
	}
	return throughput.Run(ctx, args, stdout, stderr)
}
