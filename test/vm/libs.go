// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// copyWithLibs adds a dynamic program of the host, at its own path, with the
// shared libraries it is linked to. What it opens at run time (plugins, Python's
// modules) must be given by --file.
func (r *rootfs) copyWithLibs(ctx context.Context, program string) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return fmt.Errorf("find %s: %w", program, err)
	}
	if err := r.copyFile(program, program); err != nil {
		return err
	}
	ldd, err := findTool("ldd")
	if err != nil {
		return err
	}
	var diagnosis bytes.Buffer
	cmd := exec.CommandContext(ctx, ldd, program)
	cmd.Stderr = &diagnosis
	out, err := cmd.Output()
	if err != nil {
		if isStatic(string(out) + diagnosis.String()) {
			return nil
		}
		return fmt.Errorf("list libraries of %s: %w: %s", program, err,
			bytes.TrimSpace(diagnosis.Bytes()))
	}
	libs, err := parseLdd(string(out))
	if err != nil {
		return fmt.Errorf("list libraries of %s: %w", program, err)
	}
	for _, lib := range libs {
		if err := r.copyFile(lib, lib); err != nil {
			return err
		}
	}
	return nil
}

// isStatic recognises how ldd refuses a program without libraries.
func isStatic(lddOutput string) bool {
	return strings.Contains(lddOutput, "not a dynamic executable")
}

// parseLdd reads lines of the forms
//
//	linux-vdso.so.1 (0x...)
//	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)
//	/lib64/ld-linux-x86-64.so.2 (0x...)
func parseLdd(out string) ([]string, error) {
	var libs []string
	for line := range strings.Lines(out) {
		name, target, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found {
			target = name
		}
		if strings.HasPrefix(target, "not found") {
			return nil, fmt.Errorf("library %s not found", name)
		}
		if lib, _, _ := strings.Cut(target, " "); strings.HasPrefix(lib, "/") {
			libs = append(libs, lib)
		}
	}
	return libs, nil
}
