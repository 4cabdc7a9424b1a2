// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/synspy/synspy/test/bench/command"
	"golang.org/x/sys/unix"
)

// Where results come from.
const (
	inGuest = "vm"
	onHost  = "here"
)

// hostPort is this machine's port: one that nobody else on it is likely to use for
// dropping SYNs. synspy watches all namespaces, and would count those too.
func hostPort() int { return 18000 + os.Getpid()%2000 }

// niceness of the virtual machine: ten times the share of an ordinary process.
const niceness = "-10"

// plan is a whole run: what to measure where.
type plan struct {
	config
	vm, kernel string
	root       string // runs a command as root
	dir        string // for results
	skip       string
}

// Run measures everywhere and prints the result.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p plan
	flags.StringVar(&p.synspy, "synspy", "bin/synspy", "`path` of synspy, static")
	flags.StringVar(&p.vm, "vm", "bin/vm", "`path` of test/vm's program")
	flags.StringVar(&p.kernel, "kernel", "6.12", "`name` of the virtual machine's kernel, see bin/vm kernels")
	flags.StringVar(&p.root, "root", "scripts/as-root", "`path` of what runs a command as root")
	flags.StringVar(&p.dir, "dir", "bin", "keep results in this `directory`")
	flags.StringVar(&p.skip, "skip", "", "measure not "+onHost+", or not in the "+inGuest)
	peer := flags.String("peer", os.Getenv("PEER"), "`path` of the bpftrace script (default $PEER, or the one in "+command.PeerScripts+" for this bpftrace)")
	quick := flags.Bool("quick", false, "3 pairs and one flood: for development")
	p.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		p.pairs, p.floods = 3, 1
	}
	p.peer = command.FindPeer(ctx, *peer, stderr)

	unlock, err := lock(ctx, p.dir, stderr)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(p.dir, "bench.ndjson")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	begin := time.Now()
	for _, where := range []struct {
		name    string
		measure func(context.Context, string, io.Writer) error
	}{{onHost, p.measureHere}, {inGuest, p.measureInGuest}} { // here first: it may ask for a password
		if p.skip == where.name {
			continue
		}
		if err := where.measure(ctx, path, stderr); err != nil {
			return fmt.Errorf("measure (%s): %w", where.name, err)
		}
	}
	table, err := os.Create(filepath.Join(p.dir, "bench.txt"))
	if err != nil {
		return fmt.Errorf("keep tables: %w", err)
	}
	err = report(path, io.MultiWriter(stdout, table))
	fmt.Fprintf(stderr, "bench: took %s; results are in %s, these tables in %s\n", time.Since(begin).Round(time.Second), path, table.Name())
	return errors.Join(err, table.Close())
}

// lock keeps two runs from measuring each other, and from writing to the same files.
func lock(ctx context.Context, dir string, stderr io.Writer) (unlock func(), err error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory for results: %w", err)
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock directory for results: %w", err), file.Close())
		}
		if !waited {
			fmt.Fprintln(stderr, "bench: another run is under way: waiting for it")
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), file.Close())
		}
	}
}

// measureArgs are those of bench measure on either machine.
func (p *plan) measureArgs(where, out, synspy string, port int, budget time.Duration) []string {
	return []string{"measure", "-where", where, "-out", out, "-synspy", synspy, "-port", strconv.Itoa(port),
		"-pairs", strconv.Itoa(p.pairs), "-floods", strconv.Itoa(p.floods), "-budget", budget.String()}
}

// measureInGuest boots a machine and measures there.
func (p *plan) measureInGuest(ctx context.Context, path string, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out := path + ".guest"
	args := []string{"run", "--kernel", p.kernel, "--memory", "3G", "--timeout", "25m",
		"--file", p.synspy + ":" + command.GuestSynspy, "--file", self + ":" + command.GuestBench, "--out", command.GuestOut + ":" + out}
	argv := append([]string{command.GuestBench}, p.measureArgs(inGuest, command.GuestOut, command.GuestSynspy, command.GuestPort, p.budget)...)
	if p.peer != "" {
		bpftrace, err := exec.LookPath("bpftrace")
		if err != nil {
			return err
		}
		args = append(args, "--file-with-libs", bpftrace, "--file", p.peer+":"+command.GuestPeer)
		argv = append(argv, "-peer", command.GuestPeer)
	}
	// A guest cannot see what its host's other programs take from it, so it would
	// measure them. Without the right to, nice warns and goes on.
	args = append([]string{"-n", niceness, p.vm}, args...)
	runErr := command.Run(ctx, stderr, "nice", append(append(args, "--"), argv...)...)
	results, err := os.ReadFile(out)
	if err == nil {
		err = errors.Join(appendFile(path, results), os.Remove(out))
	}
	return errors.Join(runErr, err)
}

func appendFile(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

// measureHere measures on this kernel, synspy only: the script needs kfuncs,
// which not every machine has.
func (p *plan) measureHere(ctx context.Context, path string, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// It is quick, and the time of the whole run is bounded.
	args := p.measureArgs(onHost, path, p.synspy, hostPort(), p.budget/4)
	if err := command.Run(ctx, stderr, p.root, append([]string{self}, args...)...); err != nil {
		return err
	}
	return command.Run(ctx, stderr, p.root, self, "scale", "-where", onHost, "-out", path, "-synspy", p.synspy)
}
