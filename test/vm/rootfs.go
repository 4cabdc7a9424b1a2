// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// rootfs collects the files of the guest. A later file replaces an earlier one of
// the same path. The layout is the merged one of today's Debian, /bin being a
// link to usr/bin, so that a host's programs find their files where they expect.
type rootfs struct {
	files map[string]rootFile // by path without a leading slash
}

type rootFile struct {
	cpioEntry
	host string // file to copy; when empty, text
	text string
}

func newRootfs() *rootfs {
	root := &rootfs{files: map[string]rootFile{}}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		root.files[dir] = rootFile{cpioEntry: cpioEntry{mode: cpioSymlink | 0o777},
			text: "usr/" + dir}
		root.addDir("usr/" + dir)
	}
	// The kernel opens /dev/console for init before init can mount anything.
	root.addDir("dev")
	root.files["dev/console"] = rootFile{cpioEntry: cpioEntry{mode: cpioChar | 0o600, major: 5,
		minor: 1}}
	return root
}

// guestPath gives the place of a path in the merged layout.
func guestPath(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	switch first, _, below := strings.Cut(p, "/"); first {
	case "bin", "sbin", "lib", "lib64":
		if below {
			return "usr/" + p
		}
	}
	return p
}

func (r *rootfs) add(p string, f rootFile) {
	p = guestPath(p)
	r.addDir(path.Dir(p))
	r.files[p] = f
}

func (r *rootfs) addDir(p string) {
	for p = guestPath(p); p != "." && p != "" && r.files[p].mode == 0; p = path.Dir(p) {
		r.files[p] = rootFile{cpioEntry: cpioEntry{mode: cpioDir | 0o755}}
	}
}

func (r *rootfs) addText(p, text string) {
	r.add(p, rootFile{cpioEntry: cpioEntry{mode: cpioFile | 0o644}, text: text})
}

func (r *rootfs) addScript(p, text string) {
	r.add(p, rootFile{cpioEntry: cpioEntry{mode: cpioFile | 0o755}, text: text})
}

func (r *rootfs) addLink(p, target string) {
	r.add(p, rootFile{cpioEntry: cpioEntry{mode: cpioSymlink | 0o777}, text: target})
}

// copyFile adds a regular file of the host, following links to it.
func (r *rootfs) copyFile(host, guest string) error {
	stat, err := os.Stat(host)
	if err != nil {
		return fmt.Errorf("copy into guest: %w", err)
	}
	if !stat.Mode().IsRegular() {
		return fmt.Errorf("copy %s into guest: not a regular file", host)
	}
	r.add(guest,
		rootFile{cpioEntry: cpioEntry{mode: cpioFile | uint32(stat.Mode().Perm()),
			size: stat.Size()}, host: host})
	return nil
}

// copy adds a file of the host, or a directory with everything in it. Links
// within a directory stay links.
func (r *rootfs) copy(host, guest string) error {
	stat, err := os.Stat(host)
	if err != nil {
		return fmt.Errorf("copy into guest: %w", err)
	}
	if !stat.IsDir() {
		return r.copyFile(host, guest)
	}
	host, err = filepath.EvalSymlinks(host)
	if err != nil {
		return fmt.Errorf("copy into guest: %w", err)
	}
	return filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy into guest: %w", err)
		}
		to := path.Join(guest, strings.TrimPrefix(p, host))
		switch d.Type() {
		case fs.ModeDir:
			r.addDir(to)
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return fmt.Errorf("copy into guest: %w", err)
			}
			r.addLink(to, target)
		case 0:
			return r.copyFile(p, to)
		}
		return nil // sockets and devices mean nothing to another machine
	})
}

// write writes everything as a cpio archive, directories before what is in them.
func (r *rootfs) write(w io.Writer) error {
	archive := &cpioWriter{w: w}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if err := r.files[name].write(archive, name); err != nil {
			return err
		}
	}
	return archive.close()
}

func (f rootFile) write(archive *cpioWriter, name string) (err error) {
	entry := f.cpioEntry
	entry.name = name
	if f.host == "" {
		entry.size = int64(len(f.text))
		return archive.write(entry, strings.NewReader(f.text))
	}
	file, err := os.Open(f.host)
	if err != nil {
		return fmt.Errorf("copy into guest: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return archive.write(entry, file)
}
