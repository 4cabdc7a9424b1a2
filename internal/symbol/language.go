// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bytes"
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxComment is how much of an ELF file's comment is read, in bytes.
const maxComment = 1 << 12

// Language says what the executable of a watched process was written in: "go", "rust", or nothing
// where it does not say so. Only what is mapped is read, within the time that any file gets.
func (s *Symbols) Language(pid uint32) string {
	p := s.processes[pid]
	if p == nil {
		return ""
	}
	path := make([]byte, 4096)
	n, err := unix.Readlinkat(int(p.dir.Fd()), "exe", path)
	if err != nil {
		return ""
	}
	var file *os.File
	for i := range p.mappings {
		m := &p.mappings[i]
		if m.path == string(path[:n]) {
			file = s.files[fileID{m.device, m.inode}]
			break
		}
	}
	if file == nil {
		return ""
	}
	language, err := within(context.Background(), func(context.Context) (string, error) {
		return languageOf(file)
	})
	if err != nil {
		s.log.Debug("reading what an executable was written in", "pid", pid, "err", err)
	}
	return language
}

// languageOf goes by what is there in stripped executables, too: Go's table of functions, and the
// compilers' comment.
func languageOf(file io.ReaderAt) (string, error) {
	i, err := openImage(file)
	if err != nil {
		return "", err
	}
	if _, ok := i.section(".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo"); ok {
		return "go", nil
	}
	s, ok := i.section(".comment")
	if !ok {
		return "", nil
	}
	text := make([]byte, min(s.Size, maxComment))
	if _, err := file.ReadAt(text, int64(s.Off)); err != nil {
		return "", err
	}
	if bytes.Contains(text, []byte("rustc version")) {
		return "rust", nil
	}
	return "", nil
}
