// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// PeerScripts holds the scripts, beside the tree.
const PeerScripts = "../shared/peers"

// FindPeer chooses the script that this machine's bpftrace can run, and says so
// when there is none to compare with.
func FindPeer(ctx context.Context, path string, stderr io.Writer) string {
	version, err := exec.CommandContext(ctx, "bpftrace", "--version").Output()
	if err != nil {
		fmt.Fprintln(stderr, "bench: no bpftrace here: measuring without the script to compare with (apt-get install bpftrace)")
		return ""
	}
	if path == "" {
		path = filepath.Join(PeerScripts, "synq.bt")
		if strings.HasPrefix(string(version), "bpftrace v0.17.") { // Debian 12's
			path = filepath.Join(PeerScripts, "synq17.bt")
		}
	}
	if _, err := os.Stat(path); err != nil {
		fmt.Fprintf(stderr, "bench: no script %s: measuring without it (PEER=... names one)\n", path)
		return ""
	}
	return path
}
