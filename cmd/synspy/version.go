// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/cli"
)

// Set by the linker, see the Makefile.
var (
	version = "dev"
	commit  = ""
)

func newVersion(e env) *cobra.Command {
	var output outputFlags
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Version, commit and kernel range",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			writing, err := output.writing(e)
			if err != nil {
				return err
			}
			return cli.Version(e.stdout, version, commit, writing)
		},
	}
	output.add(cmd)
	return cmd
}
