// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// takeOnce makes the flags of a command and of those below it refuse a second value, unless they
// keep several: the last one would be taken in silence.
func takeOnce(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, several := f.Value.(pflag.SliceValue); several {
			return
		}
		f.Value = &once{Value: f.Value, name: f.Name}
		if f.DefValue == "0s" { // pflag knows a duration's zero only by its own type
			f.DefValue = "0"
		}
	})
	for _, sub := range cmd.Commands() {
		takeOnce(sub)
	}
}

// once is a flag's value that is set once. A switch may be set again to what it is: that says
// nothing new.
type once struct {
	pflag.Value
	name  string
	given *string
}

func (o *once) Set(text string) error {
	if o.given != nil && (o.Type() != "bool" || *o.given != text) {
		return &givenAgain{o.name, *o.given, text}
	}
	o.given = &text
	return o.Value.Set(text)
}

// givenAgain is a second value for a flag that takes one.
type givenAgain struct{ flag, first, second string }

func (e *givenAgain) Error() string {
	return fmt.Sprintf("--%s is given twice, %q and %q: it takes one value", e.flag, e.first,
		e.second)
}
