// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OutFile is a file that a run is to leave. What was in it is kept until there is something to
// write, and one that was made for nothing is removed: a run that is refused costs nothing.
type OutFile struct {
	*os.File
	made, begun bool
	given       bool // it is one of the descriptors that the process was started with
}

// ownOnly is the mode of what is written: who a machine's clients are is nobody else's business.
const ownOnly = 0o600

// OpenOut opens a file to write to. Where others may write as well, its last component may be a
// link to any file of root's, or a pipe that nobody reads: both are refused.
func OpenOut(path string) (*OutFile, error) {
	if number, ok := descriptor(path); ok {
		return dupOut(path, number)
	}
	const how = unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Open(path, how|unix.O_CREAT|unix.O_EXCL, ownOnly)
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		fd, err = unix.Open(path, how, 0)
	}
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("open %s: it is a symbolic link: name the file itself", path)
	case errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("open %s: a pipe or socket that nobody reads", path)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	o := &OutFile{made: made}
	if err = trusted(fd, path); err == nil {
		err = blocking(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	o.File = os.NewFile(uintptr(fd), path)
	return o, nil
}

// descriptor reads the names by which a process calls its own descriptors.
func descriptor(path string) (number int, ok bool) {
	switch path = filepath.Clean(path); path {
	case "/dev/stdout":
		return 1, true
	case "/dev/stderr":
		return 2, true
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"} {
		if text, below := strings.CutPrefix(path, dir); below {
			number, err := strconv.Atoi(text)
			return number, err == nil && number >= 0
		}
	}
	return 0, false
}

// dupOut takes a descriptor as it was given, wherever in its file it is.
func dupOut(path string, number int) (*OutFile, error) {
	mode, err := unix.FcntlInt(uintptr(number), unix.F_GETFL, 0)
	if err == nil && mode&unix.O_ACCMODE == unix.O_RDONLY {
		err = unix.EBADF
	}
	fd := -1
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &OutFile{File: os.NewFile(uintptr(fd), path), given: true}, nil
}

// trusted refuses a file that somebody else has put where everybody may: he could read what is
// written.
func trusted(fd int, path string) error {
	var st, dir unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := unix.Stat(filepath.Dir(path), &dir); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Dir(path), Err: err}
	}
	others := st.Uid != uint32(os.Geteuid()) || st.Nlink > 1
	if st.Mode&unix.S_IFMT == unix.S_IFREG && dir.Mode&unix.S_IWOTH != 0 && others {
		return fmt.Errorf("open %s: it may be another user's: everybody can write to its directory", path)
	}
	return nil
}

// blocking lets writes wait: only the opening must not. Go waits for a pipe by itself.
func blocking(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFIFO {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// Begin empties it, if it is one that keeps what is written, and lets nobody else read it.
func (o *OutFile) Begin() error {
	o.begun = true
	if o.given {
		return nil
	}
	info, err := o.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err = o.Chmod(ownOnly); errors.Is(err,
		fs.ErrPermission) { // whose it is has said who may read it
		err = nil
	}
	return errors.Join(err, o.Truncate(0))
}

// Close ends the file.
func (o *OutFile) Close() error {
	if o.made && !o.begun {
		return errors.Join(o.File.Close(), os.Remove(o.Name()))
	}
	return o.File.Close()
}

// SharesWith reports whether it is the regular file that is written to already, by another name
// than that of a descriptor.
func (o *OutFile) SharesWith(to io.Writer) bool {
	file, ok := to.(*os.File)
	return ok && !o.given && o.Is(file)
}

// Is reports whether what is written goes to the file that is read.
func (o *OutFile) Is(from io.Reader) bool {
	file, ok := from.(*os.File)
	if !ok {
		return false
	}
	a, err := file.Stat()
	if err != nil || !a.Mode().IsRegular() {
		return false
	}
	b, err := o.Stat()
	return err == nil && os.SameFile(a, b)
}
