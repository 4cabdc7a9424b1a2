package symbol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var errNotRegular = errors.New("not a regular file")

// fileID tells files of one machine apart, as /proc/PID/maps shows them.
type fileID struct {
	device string
	inode  uint64
}

// openMapped opens the file behind a mapping, which may be deleted, or in a container. Without the right to
// follow /proc/PID/map_files it is looked for by name inside the process's root.
func openMapped(proc, root *os.File, m *mapping) (*os.File, error) {
	name := fmt.Sprintf("map_files/%x-%x", m.start, m.end)
	fd, err := unix.Openat(int(proc.Fd()), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		return reopen(fd)
	}
	file, errByName := openInside(root, m.path)
	if errByName != nil {
		return nil, errors.Join(err, errByName)
	}
	// Another file may have come to that name.
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Ino != m.inode {
		file.Close()
		return nil, fmt.Errorf("open %s: another file has its name", m.path)
	}
	return file, nil
}

// openInside opens a regular file by its name in a process's root, out of which no symbolic link leads.
func openInside(root *os.File, path string) (*os.File, error) {
	if root == nil {
		return nil, errors.New("the process's root is not known")
	}
	fd, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return reopen(fd)
}

// reopen opens for reading what a descriptor names, which it closes, unless it is something whose mere opening
// has effects.
func reopen(fd int) (*os.File, error) {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at file: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errNotRegular
	}
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	own, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(own), name), nil
}

// openPerfMap opens the perf map that the process writes, under the number it knows itself by. It must
// be the process's own, or root's.
func openPerfMap(proc, root *os.File) (*os.File, error) {
	status, err := openAt(proc, "status")
	if err != nil {
		return nil, err
	}
	defer status.Close()
	var pid string
	users := map[string]bool{"0": true}
	lines := bufio.NewScanner(io.LimitReader(status, 1<<16))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "NSpid:":
			pid = fields[len(fields)-1]
		case fields[0] == "Uid:":
			for _, user := range fields[1:] {
				users[user] = true
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	if pid == "" {
		return nil, errors.New("read status: no NSpid")
	}
	name := filepath.Join("/tmp", "perf-"+pid+".map")
	file, err := openInside(root, name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || !users[strconv.FormatUint(uint64(st.Uid), 10)] {
		file.Close()
		return nil, fmt.Errorf("open %s: it is another user's", name)
	}
	return file, nil
}

// openAt opens a file of a process's directory.
func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
