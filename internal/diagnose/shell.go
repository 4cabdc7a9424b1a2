// SPDX-License-Identifier: Apache-2.0

package diagnose

import "strings"

const shellSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@"

// plain tells whether a name means the same to a shell, and is no option.
func plain(name string) bool {
	return name != "" && name[0] != '-' && strings.Trim(name, shellSafe) == ""
}

// word is a name or path from outside as part of a command that is to be pasted: what a shell would not take as it is gets
// single quotes. Whoever names a device, cgroup or process chooses what is in it.
func word(name string) string { return quote(name, shellSafe+"/:=,+%") }

// Said is one in a sentence. Blanks are harmless there, and names of processes have them.
func Said(name string) string { return quote(name, shellSafe+"/:=,+% ") }

func quote(name, safe string) string {
	if name == "" || strings.Trim(name, safe) == "" {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
