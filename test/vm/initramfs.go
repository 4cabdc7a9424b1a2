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

// guestFile is a file the user wants in the guest.
type guestFile struct {
	host, guest string
	withLibs    bool // host is a dynamic program; guest is the same path
}

// buildInitramfs writes the guest's root file system for a kernel to path.
func buildInitramfs(ctx context.Context, path string, k *unpacked, busybox string, files []guestFile, modules []string) error {
	root := newRootfs()
	root.addScript("/init", initScript)
	for name, text := range etcFiles {
		root.addText(name, text)
	}
	if err := root.copyFile(busybox, "/bin/busybox"); err != nil {
		return err
	}
	// Programs look here for what the kernel was built with.
	for _, config := range []string{filepath.Join(k.Dir, "boot", "config-"+k.Release), filepath.Join(k.Modules, "config")} {
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
	return writeCompressed(path, root)
}

func writeCompressed(path string, root *rootfs) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create initramfs: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	buffered := bufio.NewWriterSize(file, 1<<20)
	compressed, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("compress initramfs: %w", err)
	}
	if err := root.write(compressed); err != nil {
		return err
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("compress initramfs: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}
