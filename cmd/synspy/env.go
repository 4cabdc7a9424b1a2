// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/cli"
)

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", cli.ErrUsage, fmt.Errorf(format, args...))
}

// env is the world that a command line runs in.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       func() (width int, ok bool) // of stdout
	height         func() int                  // of that terminal in rows, 0 for unknown; may be nil
	stdin          io.Reader
	command        string // the command line, as a shell takes it
}

func unknownCommand(root *cobra.Command, name string) error {
	hint := "run " + root.CommandPath() + " --help for the commands"
	var names []string
	for _, sub := range root.Commands() {
		names = append(names, sub.Name())
	}
	if near := cli.DidYouMean(name, names); near != "" {
		hint = near
	}
	return usage("unknown command %q\n%s", strings.TrimPrefix(root.CommandPath()+" "+name,
		"synspy "), hint)
}

// anyArgs leaves arguments to the command: cobra's own errors about them are no
// usage errors here.
func anyArgs(*cobra.Command, []string) error { return nil }

// noArgs refuses arguments as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no argument %q\nrun %s --help for the flags",
			cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}
