// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"
)

// matrixOptions is what to run on every kernel.
type matrixOptions struct {
	vm          vmOptions
	synspy      string
	noLab       bool
	scenarios   []string // none: every one that synspy lab list names
	tests       []testBinary
	endToEnd    []testBinary  // run once per backend
	endToEndRun string        // of their tests, those that match
	short       bool          // the standard matrix: end-to-end tests with one backend only
	results     string        // directory for what everything prints; empty: nowhere
	timeout     time.Duration // for a machine
	cellTimeout time.Duration // for one test binary or scenario
}

// testBinary is what go test -c made.
type testBinary struct{ name, path string }

// testColumn is the column of things that choose no backend.
const testColumn = "test"

// kernelRun is all that happened on one kernel.
type kernelRun struct {
	kernel  kernel
	version string // of Debian's package
	took    time.Duration
	cells   []cell
	err     error // what kept the kernel from being tested in full
}

// guestFile is a file the user wants in the guest.
type guestFile struct {
	host, guest string
	withLibs    bool // host is a dynamic program; guest is the same path
}

// Where the guest finds what is under test.
const (
	guestSynspy = "/usr/bin/synspy"
	guestTests  = "/opt/test/"
)
