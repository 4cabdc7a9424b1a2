// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/recording"
	"github.com/synspy/synspy/internal/trace"
)

func newTrace(e env) *cobra.Command {
	var (
		watch       watchFlags
		output      = outputFlags{packets: true}
		duration    time.Duration
		count       uint64
		cookies     bool
		read, write string
	)
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Live: one record per dropped or reset SYN or handshake ACK",
		Long: `Live: one record per dropped or reset SYN or handshake ACK.

QUEUE is the length and the limit of the queue that the packet was to enter, as they
were then. An accept queue is full when its length is above its limit (129/128: it
holds one more than listen() asked for), a SYN queue when it has reached it
(syn 128/128). TRY counts the packets of one handshake that died.

--write keeps the records in a file while the screen shows them, and --read shows
such a file again, in any form and through any filter that records can answer.
-o pcapng writes the dropped packets themselves, each with a comment; its summary
goes to standard error.`,
		Example: `  sudo synspy trace --port 443
  sudo synspy trace --port 443,8000-8010 --client 10.0.0.0/8 -o json
  sudo synspy trace --netns web --cause accept_queue_full --duration 30s
  sudo synspy trace --write incident.ndjson
  synspy trace --read incident.ndjson -o wide --port 443
  sudo synspy trace -o pcapng | wireshark -k -i -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration < 0 {
				return usage("--duration %v: want a time like 30s", duration)
			}
			if read != "" {
				return replay(cmd, e, read, write, &watch, &output, count)
			}
			w, err := watch.watch(e)
			if err != nil {
				return err
			}
			if cookies && len(w.Filter.Stages) > 0 &&
				!slices.Contains(w.Filter.Stages, event.StageSyn) {
				return usage("--cookies does not go with --stage %v: cookies answer SYNs", w.Filter.Stages[0])
			}
			w.Cookies = cookies
			w.Capture = output.format == cli.FormatPackets
			stream, err := output.stream(e, w)
			if err != nil {
				return err
			}
			record, err := recorded(write, e)
			if err != nil {
				return err
			}
			return trace.Run(cmd.Context(), stream,
				trace.Options{Watch: w, Duration: duration,
					Count: count, Filters: filters(cmd), Status: e.stderr, Record: record}, output.logger(e))
		},
	}
	watch.add(cmd)
	output.add(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&duration, "duration", 0,
		"stop after this time, like 30s (default: until Ctrl-C)")
	flags.Uint64Var(&count, "count", 0, "stop after so many drops")
	flags.BoolVar(&cookies, "cookies", false, "also show SYNs that a SYN cookie answered")
	flags.StringVar(&write, "write", "",
		"file that keeps the JSON records while they are shown")
	flags.StringVar(&read, "read", "",
		"file of such records to show instead; - for standard input")
	complete(cmd, "duration")
	complete(cmd, "count")
	return cmd
}

func recorded(path string, e env) (*recording.Recording, error) {
	if path == "" {
		return nil, nil
	}
	record, err := recording.CreateRecording(path)
	if err != nil {
		return nil, err
	}
	if err := record.Apart(e.stdout); err != nil {
		return nil, err
	}
	return record, nil
}

// ofRecords are the flags that make sense with --read.
var ofRecords = []string{"read", "write", "count", "output", "time", "no-color", "log-level",
	"port", "addr", "client", "cause", "stage", "pid", "comm", "cgroup", "container", "pod", "netns"}

// replay is trace --read. It needs no privileges, and asks nothing of this machine.
func replay(cmd *cobra.Command, e env, read, write string, watch *watchFlags, output *outputFlags,
	count uint64) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(ofRecords, f.Name) {
			err = usage("--%s does not go with --read: records of another time cannot answer it", f.Name)
		}
	})
	if err != nil {
		return err
	}
	if output.format == cli.FormatPackets {
		return usage("-o %s does not go with --read: there are no packet bytes in records",
			cli.FormatPackets)
	}
	if cmd.Flags().Changed("pid") && watch.selection.PID == 0 {
		return usage("--pid 0 is no process ID")
	}
	filter, err := recording.OfRecords(watch.selection)
	if err != nil {
		return err
	}
	writing, err := output.writing(e)
	if err != nil {
		return err
	}
	from := e.stdin
	if read != "-" {
		file, err := recording.OpenRecords(read)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	record, err := recorded(write, e)
	if err != nil {
		return err
	}
	return recording.Replay(cmd.Context(), from, writing.Replay(e.stdout),
		recording.ReplayOptions{Filter: filter, Filters: filters(cmd), Count: count,
			Status: e.stderr, Record: record}, output.logger(e))
}
