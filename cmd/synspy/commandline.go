// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// program is this synspy, as the records of its run name it.
func (e env) program() event.Program { return event.Program{Version: version, Command: e.command} }

// commandLine writes a command line as a shell takes it.
func commandLine(args []string) string {
	words := []string{"synspy"}
	for _, arg := range args {
		if arg == "" || strings.ContainsFunc(arg, quoted) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// quoted reports whether a shell may take a character for more than itself.
func quoted(r rune) bool {
	return !strings.ContainsRune("-_./:,=@%+^", r) && (r < '0' || r > '9') &&
		(r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}
