// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/listing"
)

func newListeners(e env) *cobra.Command {
	var (
		options listing.Options
		watch   watchFlags
		output  outputFlags
	)
	cmd := &cobra.Command{
		Use:   "listeners",
		Short: "Every listening TCP socket of every network namespace, both queues, limits, owners, warnings",
		Long: `Every listening TCP socket of every network namespace, both queues, limits, owners, warnings.

Nothing is attached to the kernel unless --watch asks for rates. Where BPF is not
permitted it shows what inet_diag and /proc tell, and says what is missing. ~DROPS
is the socket's own count since it was made, which is approximate.`,
		Example: `  sudo synspy listeners
  sudo synspy listeners --sort queue --port 443,8000-8010
  sudo synspy listeners --watch --netns web
  sudo synspy listeners --exit-code -o json > listeners.ndjson`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range []string{"interval", "duration", "count", "backend"} {
				if cmd.Flags().Changed(flag) && !options.Repeat {
					return usage("--%s is for --watch", flag)
				}
			}
			if options.Sort == "rate" && !options.Repeat {
				return usage("--sort rate is for --watch: one look at the listeners has no rates")
			}
			if options.Interval < 100*time.Millisecond {
				return usage("--interval %v: want 100ms or more", options.Interval)
			}
			if options.Duration < 0 {
				return usage("--duration %v: want a time like 30s",
					options.Duration)
			}
			if options.ExitCode && options.Repeat {
				return usage("--exit-code does not go with --watch")
			}
			w, err := watch.watch(e)
			if err != nil {
				return err
			}
			writing, err := output.writing(e)
			if err != nil {
				return err
			}
			options.Watch, options.Status = w, e.stderr
			return listing.Run(cmd.Context(), e.stdout, writing, options,
				output.logger(e))
		},
	}
	watch.addListeners(cmd)
	flags := cmd.Flags()
	flags.StringVar(&options.Sort, "sort", "address", strings.Join(listing.SortOrders(), ", "))
	flags.BoolVar(&options.Repeat, "watch", false, "list again every interval, with rates")
	flags.DurationVar(&options.Interval, "interval", time.Second, "of --watch")
	flags.DurationVar(&options.Duration, "duration", 0,
		"stop --watch after this time, like 30s (default: until Ctrl-C)")
	flags.Uint64Var(&options.Count, "count", 0, "stop --watch after so many intervals")
	flags.BoolVar(&options.ExitCode, "exit-code", false, "exit with 4 when there is a warning")
	complete(cmd, "sort", listing.SortOrders()...)
	for _, name := range []string{"interval", "duration", "count"} {
		complete(cmd, name)
	}
	output.add(cmd)
	return cmd
}
