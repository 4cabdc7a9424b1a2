// SPDX-License-Identifier: Apache-2.0

// Command vm runs programs as root inside a virtual machine on one of Debian's
// kernels, so that what synspy says about a kernel is proved on that kernel and
// not on the developer's. It needs neither root nor KVM: the machine is emulated.
//
//	vm fetch  [KERNEL ...]
//	vm run    --kernel 6.12 [--file HOST:GUEST] ... -- COMMAND ARGS...
//	vm matrix --synspy PATH [--kernel NAME] ... [--test-binary NAME=PATH] ...
//
// Build it before use (go build ./test/vm): `go run` turns every exit status into 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: vm VERB [FLAGS]

  kernels  list the kernels this program knows
  fetch    get kernels from the Debian mirror into the cache
  run      run a command in a virtual machine; its exit status becomes ours
  matrix   run test binaries and lab scenarios on every kernel; one table

vm VERB -h lists the flags of a verb.
`

func (e guestExit) Error() string {
	return fmt.Sprintf("guest command exited with status %d", int(e))
}

func main() {
	ctx, stop := interruptible()
	e := env{
		stdout: os.Stdout,
		stderr: os.Stderr,
		log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	err := e.dispatch(ctx, os.Args[1:])
	stop()
	os.Exit(e.report(err))
}

// interruptible gives a context that the usual signals end, which ends QEMU.
func interruptible() (context.Context, func()) {
	signals, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM,
		syscall.SIGHUP)
	ctx, cancel := context.WithCancelCause(context.Background())
	context.AfterFunc(signals, func() { cancel(errInterrupted) })
	return ctx, stop
}

func (e env) dispatch(ctx context.Context, args []string) error {
	verbs := map[string]func(context.Context, []string) error{
		"kernels": e.kernels,
		"fetch":   e.fetch,
		"run":     e.run,
		"matrix":  e.matrix,
	}
	if len(args) == 0 {
		fmt.Fprint(e.stderr, usage)
		return errUsage
	}
	verb, ok := verbs[args[0]]
	if !ok {
		fmt.Fprint(e.stderr, usage)
		return fmt.Errorf("%w: no verb %q", errUsage, args[0])
	}
	return verb(ctx, args[1:])
}

// report says what went wrong and chooses the exit status.
func (e env) report(err error) int {
	var guest guestExit
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &guest):
		return int(guest)
	}
	var failure *guestFailure
	if errors.As(err, &failure) && failure.console != "" {
		fmt.Fprintf(e.stderr, "the console's last lines (all of them are in %s):\n%s\n",
			failure.log, failure.console)
	}
	fmt.Fprintf(e.stderr, "vm: %v\n", err)
	var hint *hintError
	if errors.As(err, &hint) {
		fmt.Fprintf(e.stderr, "hint: %s\n", hint.hint)
	}
	switch {
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errTimeout):
		return exitTimeout
	case errors.Is(err, errGuest):
		return exitNoGuest
	default:
		return exitFailed
	}
}

func (e env) kernels(_ context.Context, _ []string) error {
	for _, k := range kernelTable {
		from := k.metapackage()
		if k.series != "" {
			from = fmt.Sprintf("linux-image-%s*-%s-%s", k.series, k.flavour, k.arch)
		}
		fmt.Fprintf(e.stdout, "%-13s %-6s %s from %s\n", k.name, k.arch, from, k.suite)
	}
	return nil
}

func (e env) fetch(ctx context.Context, args []string) error {
	flags := e.flagSet("fetch")
	if err := parse(flags, args); err != nil {
		return err
	}
	kernels, err := kernelsByName(flags.Args())
	if err != nil {
		return err
	}
	store, err := newStore(e.log)
	if err != nil {
		return err
	}
	for _, k := range kernels {
		got, err := store.kernel(ctx, k)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "%s %s %s %s\n", k.name, got.Version, got.Release,
			got.Vmlinuz)
	}
	return nil
}
