// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"slices"
	"strings"
)

// NameList is a flag: some of the names that there are, with commas between.
type NameList struct {
	Into  *[]string
	Known []string
}

func (l *NameList) String() string {
	if l.Into == nil {
		return ""
	}
	return strings.Join(*l.Into, ",")
}

func (l *NameList) Set(value string) error {
	*l.Into = strings.Split(value, ",")
	for _, name := range *l.Into {
		if !slices.Contains(l.Known, name) {
			return fmt.Errorf("no %q in %s", name, strings.Join(l.Known, ","))
		}
	}
	return nil
}
