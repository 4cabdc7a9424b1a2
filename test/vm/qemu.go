// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is how QEMU emulates one architecture.
type machine struct {
	qemu    string
	args    []string
	console string
}

var machines = map[string]machine{
	// Without cx16 the emulator need not stop all CPUs for each cmpxchg16b,
	// which the slab allocator would otherwise use on every allocation.
	"amd64": {qemu: "qemu-system-x86_64", args: []string{"-machine", "pc", "-cpu", "max,-cx16"},
		console: "ttyS0"},
	// Pointer authentication is costly to emulate well; its cheap form will do.
	"arm64": {qemu: "qemu-system-aarch64",
		args:    []string{"-machine", "virt", "-cpu", "max,pauth-impdef=on"},
		console: "ttyAMA0"},
}

// vmOptions is what a virtual machine is made of.
type vmOptions struct {
	kernel  kernel
	smp     int
	memory  string
	accel   string
	icount  bool   // the guest's clock counts instructions
	cmdline string // appended to the kernel's own
	files   []guestFile
	modules []string
}

// vm is a running virtual machine.
type vm struct {
	*session
	version string        // of Debian's kernel
	boot    time.Duration // by the guest's clock, until its init took commands
	dir     string        // initramfs and console log
	cmd     *exec.Cmd
	log     *slog.Logger
}

func (v *vm) consoleLog() string { return filepath.Join(v.dir, "console.log") }
func (v *vm) qemuLog() string    { return filepath.Join(v.dir, "qemu.log") }

// startVM boots a machine and waits until it takes commands. It ends with ctx.
func startVM(ctx context.Context, e env, s *store, o vmOptions) (_ *vm, err error) {
	machine, ok := machines[o.kernel.arch]
	if !ok {
		return nil, fmt.Errorf("start VM: no machine for architecture %s", o.kernel.arch)
	}
	qemu, err := findTool(machine.qemu)
	if err != nil {
		return nil, err
	}
	base, err := s.baseSystem(ctx, o.kernel.arch)
	if err != nil {
		return nil, err
	}
	image, err := s.kernel(ctx, o.kernel)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "synspy-vm-")
	if err != nil {
		return nil, fmt.Errorf("start VM: %w", err)
	}
	v := &vm{version: image.Version, dir: dir, log: e.log.With("kernel", o.kernel.name)}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	initramfs := filepath.Join(dir, "initramfs")
	if err := buildInitramfs(ctx, initramfs, image, base, o.files, o.modules); err != nil {
		return nil, fmt.Errorf("build initramfs: %w", err)
	}
	args := qemuArgs(machine, o, image.Vmlinuz, initramfs, v.consoleLog())
	if err := v.start(ctx, qemu, args); err != nil {
		return nil, fmt.Errorf("start VM: %w", err)
	}
	v.log.Info("booted", "release", image.Release, "version", image.Version, "seconds",
		v.boot.Seconds())
	return v, nil
}

func qemuArgs(m machine, o vmOptions, image, initramfs, console string) []string {
	args := append([]string{"-accel", o.accel}, m.args...)
	if o.icount {
		args = append(args, "-icount", "shift=0,sleep=off")
	}
	return append(args,
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none",
		"-smp", strconv.Itoa(o.smp), "-m", o.memory,
		"-kernel", image, "-initrd", initramfs,
		// A panic reboots at once, and a reboot ends QEMU: nobody need watch the console.
		"-no-reboot", "-append",
		strings.TrimSpace("console="+m.console+" panic=-1 oops=panic random.trust_cpu=on net.ifnames=0 "+o.kernel.cmdline+" "+o.cmdline),
		"-serial", "file:"+console,
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
		"-chardev", "stdio,id=agent,signal=off",
		"-device", "virtserialport,chardev=agent,name=synspy.agent",
	)
}

func (v *vm) start(ctx context.Context, qemu string, args []string) error {
	v.cmd = exec.CommandContext(ctx, qemu, args...)
	// A killed parent must not leave an emulator behind that eats a CPU.
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	v.cmd.WaitDelay = stopGrace
	in, err := v.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	diagnosis, err := os.Create(v.qemuLog())
	if err != nil {
		return err
	}
	defer diagnosis.Close()
	v.cmd.Stderr = diagnosis
	if err := v.cmd.Start(); err != nil {
		return err
	}
	session, hello, err := openSession(in, out)
	if err == nil && hello.status != 0 {
		_ = v.cmd.Process.Kill()
		err = fmt.Errorf("%d kernel modules cannot be inserted", hello.status)
	}
	if err != nil {
		return v.fail(ctx, fmt.Errorf("boot: %w", err))
	}
	v.session, v.boot = session, hello.uptime
	return nil
}

// stopGrace is how long a machine may take to power off.
const stopGrace = 20 * time.Second

// stop powers the machine off and removes what it used.
func (v *vm) stop() {
	hung := time.AfterFunc(stopGrace, func() { _ = v.cmd.Process.Kill() })
	v.session.close()
	hung.Stop()
	_ = v.cmd.Wait() // how it ended no longer matters
	_ = os.RemoveAll(v.dir)
}

// fail ends a machine that no longer answers. Its console goes into a file that
// stays, and the error tells why the machine stopped and where that file is.
func (v *vm) fail(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		// QEMU has closed its output, so it is about to end by itself.
		hung := time.AfterFunc(stopGrace, func() { _ = v.cmd.Process.Kill() })
		defer hung.Stop()
	}
	_ = v.cmd.Wait()
	if errors.Is(context.Cause(ctx), errInterrupted) { // nobody will want to know
		_ = os.RemoveAll(v.dir)
		return errInterrupted
	}
	text := readText(v.qemuLog()) + readText(v.consoleLog())
	kept := v.dir + ".log"
	if writeErr := os.WriteFile(kept, []byte(text), 0o644); writeErr != nil {
		v.log.Warn("console log not kept", "reason", writeErr)
	}
	_ = os.RemoveAll(v.dir)
	return &guestFailure{err: explain(ctx, err, text), console: lastLines(text, 40), log: kept}
}

// guestFailure is a machine that died or never came up.
type guestFailure struct {
	err     error
	console string // its last lines
	log     string // the file with all of it
}

func (f *guestFailure) Error() string { return f.err.Error() }
func (f *guestFailure) Unwrap() error { return f.err }

// readText reads a log that may not exist yet.
func readText(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// lastLines gives the end of a text, at most n lines of it.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
