// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/counters"
)

func newCounters(e env) *cobra.Command {
	var (
		options counters.Options
		output  outputFlags
	)
	cmd := &cobra.Command{
		Use:   "counters",
		Short: "The kernel's listen-path counters per network namespace; --watch shows what moves",
		Long: `The kernel's listen-path counters per network namespace; --watch shows what moves.

They are read from /proc, without BPF. Namespaces of other users' processes take
CAP_SYS_PTRACE. Counters marked shared are moved by other traffic too.`,
		Example: `  synspy counters
  sudo synspy counters --watch --netns web
  sudo synspy counters --watch --interval 10s -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range []string{"interval", "duration", "count"} {
				if cmd.Flags().Changed(flag) && !options.Watch {
					return usage("--%s is for --watch", flag)
				}
			}
			writing, err := output.writing(e)
			if err != nil {
				return err
			}
			options.Status = e.stderr
			return counters.Run(cmd.Context(), e.stdout, writing, options,
				output.logger(e))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.NetNS, "netns", "", "network namespace: name, path, inode or PID")
	flags.BoolVar(&options.All, "all", false,
		"also counters that are zero, or that did not move")
	flags.BoolVar(&options.Watch, "watch", false, "show what moves, interval by interval")
	flags.DurationVar(&options.Interval, "interval", time.Second, "of --watch")
	flags.DurationVar(&options.Duration, "duration", 0,
		"stop --watch after this time, like 30s (default: until Ctrl-C)")
	flags.Uint64Var(&options.Count, "count", 0, "stop --watch after so many intervals")
	for _, name := range []string{"interval", "duration", "count"} {
		complete(cmd, name)
	}
	output.add(cmd)
	return cmd
}
