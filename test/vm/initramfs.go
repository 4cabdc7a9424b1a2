// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed init.sh
var initScript string

// guestModuleList is where init finds the modules to insert, one path a line.
const guestModuleList = "/etc/vm/modules"

// etcFiles let programs look up the users and hosts they commonly ask for.
var etcFiles = map[string]string{
	"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"/etc/group":  "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n",
	"/etc/hosts":  "127.0.0.1 localhost synspy-vm\n::1 localhost\n",
}

// baseSystem is what every guest has, beside its kernel.
type baseSystem struct {
	busybox string
	// shell is the /bin/sh of the guest's commands. Debian's busybox is built to
	// prefer its own applets to whatever PATH holds, so under its shell "ip" never
	// means the program the user copied in. When empty, busybox has to do.
	shell string
}

// buildInitramfs writes the guest's root file system for a kernel to path.
func buildInitramfs(ctx context.Context, path string, k *unpacked, base baseSystem,
	files []guestFile, modules []string) error {
	root := newRootfs()
	root.addScript("/init", initScript)
	for name, text := range etcFiles {
		root.addText(name, text)
	}
	if err := root.copyFile(base.busybox, "/bin/busybox"); err != nil {
		return err
	}
	if base.shell != "" {
		if err := root.copyWithLibs(ctx, base.shell); err != nil {
			return err
		}
		root.addLink("/bin/sh", base.shell)
	}
	// Programs look here for what the kernel was built with.
	for _, config := range []string{filepath.Join(k.Dir, "boot", "config-"+k.Release),
		filepath.Join(k.Modules, "config")} {
		if _, err := os.Stat(config); err == nil {
			if err := root.copyFile(config, "/boot/config-"+k.Release); err != nil {
				return err
			}
		}
	}
	tree, err := openModules(k.Modules)
	if err != nil {
		return err
	}
	if err := tree.addModules(root, k.Release, append(modules, bootModules...)); err != nil {
		return err
	}
	for _, f := range files {
		var err error
		if f.withLibs {
			err = root.copyWithLibs(ctx, f.host)
		} else {
			err = root.copy(f.host, f.guest)
		}
		if err != nil {
			return err
		}
	}
	return writeInitramfs(path, root)
}

// writeInitramfs stores the archive in gzip's container without compressing it:
// with 80 MB of programs that boots 2 s sooner, emulated CPUs being slow to inflate.
func writeInitramfs(path string, root *rootfs) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create initramfs: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	buffered := bufio.NewWriterSize(file, 1<<20)
	stored, err := gzip.NewWriterLevel(buffered, gzip.NoCompression)
	if err != nil {
		return fmt.Errorf("wrap initramfs: %w", err)
	}
	if err := root.write(stored); err != nil {
		return err
	}
	if err := stored.Close(); err != nil {
		return fmt.Errorf("wrap initramfs: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}
