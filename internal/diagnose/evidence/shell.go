// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"strconv"
	"strings"
)

const shellSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@"

// Plain reports whether a name means the same to a shell, and is no option.
func Plain(name string) bool {
	return name != "" && name[0] != '-' && strings.Trim(name, shellSafe) == ""
}

// Word is a name or path from outside as part of a command that is to be pasted: what a shell would
// not take as it is gets single quotes. Whoever names a device, cgroup or process chooses what is
// in it.
func Word(name string) string { return quote(name, shellSafe+"/:=,+%") }

// Said is one in a sentence. Blanks are harmless there, and names of processes have them.
func Said(name string) string { return quote(name, shellSafe+"/:=,+% ") }

func quote(name, safe string) string {
	if name == "" || strings.Trim(name, safe) == "" {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// Thousands writes a number as 1,234,567.
func Thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
