// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/app"
)

func newCanary(e env) *cobra.Command {
	var (
		options app.CanaryOptions
		output  outputFlags
	)
	cmd := &cobra.Command{
		Use:   "canary HOST:PORT...",
		Short: "Connect latency from the client's side, and whether a SYN had to be sent again",
		Long: `Connect latency from the client's side, and whether a SYN had to be sent again.

It connects, closes at once, and sends nothing: it measures TCP, not what is
spoken over it. It needs no privileges. That a SYN was sent again (AGAIN) and how
long the answered one was on its way (RTT) is this kernel's own account of the
connection. A connect that takes 1 s or 3 s with a short RTT is a SYN that was
dropped or lost; one with a long RTT is a slow network.

  connected    the handshake was completed on both sides
  stalled      the SYN was answered, but nothing after it: a full accept queue
  reset        RST after the handshake: tcp_abort_on_overflow, or a firewall
  refused      SYN answered by RST: nothing listens or a firewall rejects
  timeout      no answer
  unreachable  no way there, here or by a router's word
  unresolved   the name has no address
  failed       this machine could not send a SYN
  pending      no answer yet when the run ended

A name is resolved once, before its first probe. Exit code 1 says that no probe of a
target was connected.`,
		Example: `  synspy canary api.example.com:443
  synspy canary --interval 100ms --duration 30s 10.0.0.1:80 [fd00::1]:80
  synspy canary --count 100 -o json db:postgresql`,
		Args: anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			writing, err := output.writing(e)
			if err != nil {
				return err
			}
			options.Targets, options.Status = args, e.stderr
			return app.Canary(cmd.Context(), e.stdout, writing, options)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&options.Interval, "interval", time.Second,
		"between the probes of a target, 10ms or more")
	flags.DurationVar(&options.Timeout, "timeout", 10*time.Second,
		"how long to wait for an answer")
	flags.Uint64Var(&options.Count, "count", 0, "stop after so many probes of each target")
	flags.DurationVar(&options.Duration, "duration", 0,
		"stop after this time, like 30s (default: until Ctrl-C)")
	flags.BoolVarP(&options.IPv4, "ipv4", "4", false, "only IPv4 addresses of names")
	flags.BoolVarP(&options.IPv6, "ipv6", "6", false, "only IPv6 addresses of names")
	for _, name := range []string{"interval", "timeout", "count", "duration"} {
		complete(cmd, name)
	}
	output.add(cmd)
	return cmd
}
