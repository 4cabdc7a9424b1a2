// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"strings"
)

// Confidential reports whether the kernel is locked down so far that no program may read its memory
// (LOCKDOWN_BPF_READ_KERNEL), not root's either. It is false where that cannot be read.
func Confidential() bool {
	text, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && confidential(string(text))
}

// confidential reads "none integrity [confidentiality]".
func confidential(lockdown string) bool { return strings.Contains(lockdown, "[confidentiality]") }
