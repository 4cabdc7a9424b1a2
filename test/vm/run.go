// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// outFile is a file to bring back from the guest.
type outFile struct{ guest, host string }

// run boots a machine, runs one command in it and takes over its exit status.
func (e env) run(ctx context.Context, args []string) error {
	flags := e.flagSet("run")
	name := flags.String("kernel", "newest", "`name` of the kernel, see vm kernels")
	timeout := flags.Duration("timeout", 10*time.Minute,
		"end the machine after this long, boot included")
	var outs []outFile
	flags.Func("out", "bring back `GUESTPATH:HOSTPATH` when the command has ended (repeatable)", func(value string) error {
		guest, host, err := splitPair(value, ":")
		outs = append(outs, outFile{guest: guest, host: host})
		return err
	})
	var options vmOptions
	options.addFlags(flags)
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return fmt.Errorf("%w: no command given", errUsage)
	}
	var err error
	if options.kernel, err = kernelByName(*name); err != nil {
		return err
	}
	store, err := newStore(e.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout,
		fmt.Errorf("%w: the machine ran for %s", errTimeout, *timeout))
	defer cancel()
	machine, err := startVM(ctx, e, store, options)
	if err != nil {
		return err
	}
	ended, err := machine.run(shellCommand(flags.Args()), e.stdout)
	if err != nil {
		return machine.fail(ctx, err)
	}
	for _, out := range outs {
		if err := machine.bringBack(out); err != nil {
			if errors.Is(err, errGuest) {
				return machine.fail(ctx, err)
			}
			if ended.status == 0 {
				machine.stop()
				return err
			}
			e.log.Warn("file not brought back", "reason", err) // the command's status says more
		}
	}
	machine.stop()
	e.log.Info("command ended", "status", ended.status, "seconds", ended.took.Seconds())
	if ended.status != 0 {
		return guestExit(ended.status)
	}
	return nil
}

// bringBack copies a file out of the guest.
func (v *vm) bringBack(out outFile) error {
	var missing strings.Builder
	guest := shellCommand([]string{out.guest})
	// Tested first, so that the file's own bytes are all that cat writes.
	there, err := v.run("test -r "+guest+" && test -f "+guest, &missing)
	if err != nil {
		return fmt.Errorf("bring back %s: %w", out.guest, err)
	}
	if there.status != 0 {
		return fmt.Errorf("bring back %s: no such file in the guest", out.guest)
	}
	file, err := os.Create(out.host)
	if err != nil {
		return fmt.Errorf("bring back %s: %w", out.guest, err)
	}
	_, err = v.run("cat "+guest, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("bring back %s: %w", out.guest, err)
	}
	return nil
}

// addFlags defines the flags that describe a machine.
func (o *vmOptions) addFlags(flags *flag.FlagSet) {
	flags.IntVar(&o.smp, "smp", 2, "CPUs of the guest")
	flags.StringVar(&o.memory, "memory", "2G", "memory of the guest")
	flags.StringVar(&o.accel, "accel", "tcg", "QEMU accelerator: tcg or kvm")
	flags.BoolVar(&o.icount, "icount", false,
		"let each instruction take a nanosecond of the guest's clock, and idling none of ours (one thread for all CPUs)")
	flags.StringVar(&o.cmdline, "append", "", "more kernel `parameters`")
	flags.Func("file", "copy a file or directory, `HOSTPATH:GUESTPATH` (repeatable)", func(value string) error {
		host, guest, err := splitPair(value, ":")
		o.files = append(o.files, guestFile{host: host, guest: guest})
		return err
	})
	flags.Func("file-with-libs", "copy the dynamic program at `HOSTPATH` and its libraries to the same paths (repeatable)", func(value string) error {
		o.files = append(o.files, guestFile{host: value, withLibs: true})
		return nil
	})
	flags.Func("module", "insert one more kernel `module` at boot (repeatable)", func(value string) error {
		o.modules = append(o.modules, moduleName(value))
		return nil
	})
}
