// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
)

// toolPackages names the Debian package each outside tool comes from.
var toolPackages = map[string]string{
	"apt-get":             "apt",
	"dpkg":                "dpkg",
	"dpkg-deb":            "dpkg",
	"ldd":                 "libc-bin",
	"xz":                  "xz-utils",
	"zstd":                "zstd",
	"busybox":             "busybox-static",
	"qemu-system-x86_64":  "qemu-system-x86",
	"qemu-system-aarch64": "qemu-system-arm",
}

// findTool gives the path of an outside tool, or an error that says which Debian
// package to install.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &hintError{
			err:  fmt.Errorf("find %s: %w", name, err),
			hint: "install it with: apt-get install " + toolPackages[name],
		}
	}
	return path, nil
}
