// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/kernel/proc"
)

// ProgramOf says what a process runs, by the name of its executable and, where that is an
// interpreter, of what it interprets. The start, in clock ticks since boot, must be the process's
// own unless it is 0. What was not allowed to be read is absent.
func ProgramOf(procRoot string, pid uint32, start uint64) (event.Software, error) {
	dir, err := (&proc.FS{Root: procRoot}).Open(pid)
	if err != nil {
		return event.Software{}, err
	}
	defer unix.Close(dir)
	st, err := proc.StatAt(dir)
	if err != nil {
		return event.Software{}, err
	}
	if start != 0 && st.Start != start {
		return event.Software{}, fmt.Errorf("process %d: %w", pid, proc.ErrOtherProcess)
	}
	var p event.Software
	live := proc.LiveThread(dir)
	p.Name = executable(dir, live+"exe")
	if text, err := proc.ReadAt(dir, live+"cmdline"); err == nil {
		p.Script, p.Title = commandOf(p.Name, text)
	}
	return p, nil
}

// executable is the name of the file that a link of /proc leads to; the file itself is not touched.
func executable(dir int, name string) string {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil || n == 0 || buf[0] != '/' {
		return ""
	}
	return path.Base(strings.TrimSuffix(string(buf[:n]), cgroup.DeletedMark))
}

// interpreters run what an argument names.
var interpreters = []string{"python", "pypy", "ruby", "perl", "node", "nodejs", "php", "java",
	"bash", "dash", "sh", "lua", "luajit", "bun", "deno", "dotnet"}

// commandOf reads the arguments of a process: what its interpreter was told to run, without a path,
// and, of one that wrote over its arguments, the first word of what it wrote.
func commandOf(name string, cmdline []byte) (script, title string) {
	args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	if first, _, spaced := strings.Cut(args[0], " "); spaced || strings.HasSuffix(first, ":") {
		title = strings.TrimSuffix(path.Base(first),
			":") // "nginx: worker process", "puma 6.4.2 (tcp://0.0.0.0:80)"
	}
	if !slices.Contains(interpreters, unversioned(name)) || title != "" {
		return "", title
	}
	java := name == "java"
	for i := 1; i < len(args); i++ {
		arg := args[i]
		switch {
		case (arg == "-m" || arg == "-jar") && i+1 < len(args):
			return path.Base(args[i+1]), ""
		case java &&
			slices.Contains([]string{"-cp", "-classpath", "--class-path", "-p",
				"--module-path"}, arg),
			!java && slices.Contains([]string{"-W", "-X", "-r", "--require", "-I"},
				arg):
			i++ // its value
		case arg == "-c" || arg == "-e" || arg == "-":
			return "", "" // the program is an argument itself
		case strings.HasPrefix(arg, "-") || strings.HasPrefix(arg, "@") || arg == "":
		default:
			return path.Base(arg), ""
		}
	}
	return "", ""
}

// unversioned is a program's name without the version at its end: "python3.11" is "python".
func unversioned(name string) string {
	return strings.TrimRight(name, "0123456789.-")
}
