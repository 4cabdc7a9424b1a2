// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/synspy/synspy/internal/app"
	"github.com/synspy/synspy/internal/cli"
)

func newCheck(e env) *cobra.Command {
	var (
		watch  watchFlags
		output outputFlags
	)
	cmd := &cobra.Command{
		Use:   "check",
		Short: "What this kernel and these privileges let synspy do, hook by hook",
		Long: `What this kernel and these privileges let synspy do, hook by hook.

The programs are loaded and attached as synspy trace would, and taken out again.
Exit code 3 says that synspy trace cannot run here.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			w, err := watch.watch(e)
			if err != nil {
				return err
			}
			writing, err := output.writing(e)
			if err != nil {
				return err
			}
			return app.Check(e.stdout, writing, w, output.logger(e))
		},
	}
	watch.addBackend(cmd)
	watch.ring = cli.DefaultRingSize()
	output.add(cmd)
	return cmd
}
