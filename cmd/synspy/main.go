// SPDX-License-Identifier: Apache-2.0

// Command synspy says which listening socket dropped or reset a TCP handshake,
// whose it is, and why.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/counters"
	"github.com/synspy/synspy/internal/judge"
	"github.com/synspy/synspy/internal/listing"
	"github.com/synspy/synspy/internal/session"
)

// Exit codes: fixed.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitUnable = 3
	exitWarned = 4 // --exit-code, and there is a warning or a cause

	exitInterrupted = 128 + int(syscall.SIGINT) // before anything was watched
)

func main() {
	if cli.LabHelper() {
		return
	}
	// A closed pipe is told by EPIPE, which ends a stream without a word.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, stop) // a second signal ends what the first could not
	if stdoutClosed() && !leavesElsewhere(os.Args[1:]) {
		_, _ = fmt.Fprint(os.Stderr,
			"synspy: standard output is closed: nobody would see what is said\n"+
				"  to throw it away, open it for writing: > /dev/null\n")
		os.Exit(exitFailed)
	}
	code := run(ctx, os.Args[1:], env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		terminal: stdoutTerminal, height: stdoutHeight, stdin: os.Stdin})
	stop()
	os.Exit(code)
}

// endings are the signals that end a run with its summary. Whoever was started to outlive its
// terminal (nohup) ignores one of them, and goes on to.
func endings() []os.Signal {
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// run is the whole command line as a function of its world.
func run(ctx context.Context, args []string, e env) int {
	e.command = commandLine(args)
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil || closedPipe(err) {
		return exitDone
	}
	code := exitCode(err)
	if code == exitWarned {
		return code // what was written says why
	}
	for i, line := range strings.Split(cli.Explain(err), "\n") {
		if i == 0 {
			line = "synspy: " + line
		} else {
			line = "  " + line
		}
		_, _ = fmt.Fprintln(e.stderr, line)
	}
	return code
}

// closedPipe reports that the reader of standard output has had enough.
func closedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) && !errors.Is(err, judge.ErrMismatch)
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, cli.ErrUnable), errors.Is(err, counters.ErrUnreadable),
		errors.Is(err, listing.ErrNoListing):
		return exitUnable
	case errors.Is(err, cli.ErrUsage):
		return exitUsage
	case errors.Is(err, listing.ErrWarned):
		return exitWarned
	case errors.Is(err, session.ErrInterrupted):
		return exitInterrupted
	default:
		return exitFailed
	}
}

func newRoot(e env) *cobra.Command {
	tellVersion := false
	root := &cobra.Command{
		Use:               "synspy",
		Short:             "Says who dropped a TCP handshake, and why",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              anyArgs,
		PersistentPreRunE: refuseEmpty,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			if tellVersion {
				return cli.Version(e.stdout, version, commit, cli.Writing{})
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&tellVersion, "version", false, "the same as synspy version")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp())
	root.AddCommand(newTrace(e), newDiagnose(e), newListeners(e), newCounters(e), newCanary(e),
		newCheck(e), newLab(e), newVersion(e), newCompletion(e))
	offerNoFiles(root)
	takeOnce(root)
	return root
}

// newHelp is cobra's, but an unknown command is bad usage.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "What a command does, and its flags",
		Args:  anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), strings.Join(args, " "))
			}
			return about.Help()
		},
	}
}
