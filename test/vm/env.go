// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
)

// Exit statuses of this program itself. They are those of timeout(1) and
// docker-run(1), to leave the guest command all the usual ones.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitTimeout     = 124
	exitNoGuest     = 125
	exitInterrupted = 130
)

// env is everything a verb may touch of the process it runs in.
type env struct {
	stdout, stderr io.Writer
	log            *slog.Logger
}

// guestExit carries the exit status of a guest command that ran to its end.
type guestExit int

// errInterrupted is a signal to this program.
var errInterrupted = errors.New("interrupted")

// errUsage marks a command line that cannot be understood.
var errUsage = errors.New("bad usage")

// hintError is an error with a remedy, printed on a line of its own.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }

func (e *hintError) Unwrap() error { return e.err }

func (e env) flagSet(verb string) *flag.FlagSet {
	flags := flag.NewFlagSet("vm "+verb, flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	return flags
}

// parse distinguishes a request for help from a bad command line.
func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}

func splitPair(value, separator string) (left, right string, err error) {
	left, right, found := strings.Cut(value, separator)
	if !found || left == "" || right == "" {
		return "", "", fmt.Errorf("want two values with a %q between them", separator)
	}
	return left, right, nil
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
