// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/synspy/synspy/internal/cli"
)

// flagError says in synspy's words what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	hint := "run " + cmd.CommandPath() + " --help for the flags"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := cli.DidYouMean(unknown.GetSpecifiedName(), names); near != "" {
			hint = strings.NewReplacer("mean ", "mean --", " or ",
				" or --").Replace(near)
		}
	}
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "" {
		err = fmt.Errorf("unknown flag: -%s", unknown.GetSpecifiedName()[:1])
	}
	if lacks := new(pflag.ValueRequiredError); errors.As(err, &lacks) {
		err = fmt.Errorf("--%s needs a value", lacks.GetFlag().Name)
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = valueError(invalid)
	}
	return usage("%w\n%s", err, hint)
}

// valueError says what a flag takes.
func valueError(invalid *pflag.InvalidValueError) error {
	flag := invalid.GetFlag()
	if errors.As(invalid, new(*givenAgain)) {
		return invalid.Unwrap()
	}
	want := "a value that it can read"
	switch flag.Value.Type() {
	case "duration":
		want = "a time like 30s, 5m or 1h"
	case "int", "uint32", "uint64":
		want = "a whole number, 0 or more"
		if errors.Is(invalid, strconv.ErrRange) &&
			!strings.HasPrefix(invalid.GetValue(), "-") {
			want = "a smaller number"
		}
	case "bool":
		want = "true or false"
	case "stringSlice":
		want = "values with commas in between"
	}
	return fmt.Errorf("--%s %q: want %s", flag.Name, invalid.GetValue(), want)
}
