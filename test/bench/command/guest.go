// SPDX-License-Identifier: Apache-2.0

// Package command has what the commands of bench share: the files of a guest, and how other programs
// are run.
package command

import (
	"context"
	"io"
	"os"
	"os/exec"
	"time"
)

// The guest's copies of the files it needs.
const (
	GuestSynspy = "/usr/bin/synspy"
	GuestBench  = "/usr/bin/bench"
	GuestPeer   = "/root/peer.bt"
	GuestOut    = "/root/bench.ndjson"
)

// GuestPort is where the guest's listener listens.
const GuestPort = 8080

// Run runs a program whose output is progress.
func Run(ctx context.Context, stderr io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stderr, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	return cmd.Run()
}
