// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// shells are those that cobra writes completion scripts for.
var shells = []struct {
	name     string
	generate func(root *cobra.Command, to io.Writer) error
}{
	{"bash", func(root *cobra.Command, to io.Writer) error {
		return root.GenBashCompletionV2(to, true)
	}},
	{"zsh", func(root *cobra.Command, to io.Writer) error { return root.GenZshCompletion(to) }},
	{"fish", func(root *cobra.Command, to io.Writer) error {
		return root.GenFishCompletion(to, true)
	}},
	{"powershell", func(root *cobra.Command, to io.Writer) error {
		return root.GenPowerShellCompletionWithDesc(to)
	}},
}

// newCompletion replaces cobra's own command, which takes an unknown shell for a
// wish to read its help.
func newCompletion(e env) *cobra.Command {
	var names []string
	for _, shell := range shells {
		names = append(names, shell.name)
	}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "A completion script for " + strings.Join(names, ", "),
		Example: `  source <(synspy completion bash)
  synspy completion zsh > "${fpath[1]}/_synspy"`,
		ValidArgsFunction: fixedArgs(names),
		Args:              anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				for _, shell := range shells {
					if shell.name == args[0] {
						return shell.generate(cmd.Root(), e.stdout)
					}
				}
			}
			return usage("completion takes one shell: %s", strings.Join(names, ", "))
		},
	}
}

// fixedArgs offers values for the first argument, and nothing for later ones.
func fixedArgs(values []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string,
		cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

// offerNoFiles keeps the shell from offering file names as arguments: no command
// takes any.
func offerNoFiles(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range cmd.Commands() {
		offerNoFiles(sub)
	}
}

// complete offers fixed values for a flag; without any it offers no file names.
func complete(cmd *cobra.Command, flag string, values ...string) {
	register(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// completeList offers values for a flag that takes several, separated by commas.
// A value may carry a description behind a tab.
func completeList(cmd *cobra.Command, flag string, values []string) {
	register(cmd, flag, func(_ *cobra.Command, _ []string, typed string) ([]string,
		cobra.ShellCompDirective) {
		before := typed[:strings.LastIndexByte(typed, ',')+1]
		offers := make([]string, len(values))
		for i, value := range values {
			offers[i] = before + value
		}
		return offers, cobra.ShellCompDirectiveNoFileComp
	})
}

func register(cmd *cobra.Command, flag string, offer cobra.CompletionFunc) {
	// The only error is an unknown flag, which is a mistake in this program.
	_ = cmd.RegisterFlagCompletionFunc(flag, offer)
}
