package probe

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetImage gives back the pages of this program's own file, which come again when
// they are needed. The Go runtime has walked all of its tables by the time main
// begins, so that else every library linked in, used or not, would be in memory during
// loading, when it takes most: 5 MB of 28. What fails is left as it was.
func forgetImage() {
	image, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var start, end uintptr
		var mode string
		if !strings.HasSuffix(lines.Text(), " "+image) {
			continue
		}
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err == nil && !strings.Contains(mode, "w") {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// smallPages asks the kernel not to give this process whole 2 MB pages where it needs a
// few KB: with transparent_hugepage=always, as Debian has it, that is 5 MB more. Child
// processes inherit it. What fails is left as it was.
func smallPages() { _ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) }
