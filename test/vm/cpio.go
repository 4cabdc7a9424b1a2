// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
)

// cpioWriter writes the newc format, the only one the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpioWriter struct {
	w     io.Writer
	inode uint32
}

// File types in a newc mode; fs.FileMode has other bits for them.
const (
	cpioDir     = 0o040000
	cpioFile    = 0o100000
	cpioSymlink = 0o120000
	cpioChar    = 0o020000
)

func (c *cpioWriter) write(e cpioEntry, data io.Reader) error {
	if e.size > 0xffffffff {
		return fmt.Errorf("archive %s: %d bytes are more than the format holds", e.name,
			e.size)
	}
	c.inode++
	name := e.name + "\x00"
	const headerSize = 110
	_, err := fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s%s",
		c.inode, e.mode, 0 /* uid */, 0 /* gid */, 1 /* links */, 0 /* time */, e.size,
		0, 0, e.major, e.minor, len(name), 0 /* checksum, unused */, name, padding(
			headerSize+len(name)))
	if err != nil {
		return fmt.Errorf("archive %s: %w", e.name, err)
	}
	if e.size == 0 {
		return nil
	}
	if _, err := io.CopyN(c.w, data, e.size); err != nil {
		return fmt.Errorf("archive %s: %w", e.name, err)
	}
	if _, err := io.WriteString(c.w, padding(int(e.size%4))); err != nil {
		return fmt.Errorf("archive %s: %w", e.name, err)
	}
	return nil
}

func (c *cpioWriter) close() error {
	return c.write(cpioEntry{name: "TRAILER!!!"}, nil)
}

// padding fills up to the next multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }

// cpioEntry is one file. Its data follows the header, size bytes of it.
type cpioEntry struct {
	name         string // without a leading slash
	mode         uint32
	size         int64
	major, minor uint32 // of a device node
}
