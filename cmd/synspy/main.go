// Command synspy says which listening socket dropped or reset a TCP handshake,
// whose it is, and why.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/app"
)

// Exit codes: fixed.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitUnable = 3
)

// env is the world that a command line runs in.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       func() (width int, ok bool) // of stdout
}

func main() {
	if app.LabHelper() {
		return
	}
	// A closed pipe is told by EPIPE, which ends a stream without a word.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], env{os.Stdout, os.Stderr, os.Getenv, stdoutTerminal})
	stop()
	os.Exit(code)
}

// run is the whole command line as a function of its world.
func run(ctx context.Context, args []string, e env) int {
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	for i, line := range strings.Split(app.Explain(err), "\n") {
		if i == 0 {
			line = "synspy: " + line
		} else {
			line = "  " + line
		}
		_, _ = fmt.Fprintln(e.stderr, line)
	}
	return code
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, app.ErrUnable):
		return exitUnable
	case errors.Is(err, app.ErrUsage):
		return exitUsage
	default:
		return exitFailed
	}
}

func newRoot(e env) *cobra.Command {
	root := &cobra.Command{
		Use:           "synspy",
		Short:         "Says who dropped a TCP handshake, and why",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q\nrun synspy --help for the commands", app.ErrUsage, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w\nrun %s --help for the flags", app.ErrUsage, err, cmd.CommandPath())
	})
	root.AddCommand(newTrace(e), newLab(e), newVersion(e))
	return root
}

// noArgs refuses arguments as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no argument %q\nrun %s --help for the flags", app.ErrUsage,
			cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}
