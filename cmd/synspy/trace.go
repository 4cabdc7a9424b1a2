package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/app"
)

func newTrace(e env) *cobra.Command {
	var (
		watch    watchFlags
		output   outputFlags
		duration time.Duration
		count    uint64
		cookies  bool
	)
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Live: one record per dropped or reset SYN or handshake ACK",
		Example: `  sudo synspy trace --port 443
  sudo synspy trace --port 443,8000-8010 --client 10.0.0.0/8 -o json
  sudo synspy trace --netns web --cause accept_queue_full --duration 30s`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration < 0 {
				return usage("--duration %v: want a time like 30s", duration)
			}
			w, err := watch.watch()
			if err != nil {
				return err
			}
			w.Cookies = cookies
			stream, err := output.stream(e, w)
			if err != nil {
				return err
			}
			return app.Trace(cmd.Context(), stream, app.TraceOptions{Watch: w, Duration: duration,
				Count: count, Status: e.stderr}, output.logger(e))
		},
	}
	watch.add(cmd)
	output.add(cmd)
	cmd.Flags().DurationVar(&duration, "duration", 0, "stop after this time, like 30s (default: until Ctrl-C)")
	cmd.Flags().Uint64Var(&count, "count", 0, "stop after so many drops")
	cmd.Flags().BoolVar(&cookies, "cookies", false, "also show SYNs that a SYN cookie answered")
	complete(cmd, "duration")
	complete(cmd, "count")
	return cmd
}
