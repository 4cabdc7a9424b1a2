// SPDX-License-Identifier: Apache-2.0

// Package instructions counts what operations of the network cost, in machines whose clock counts
// instructions, with and without a tracer.
package instructions

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/synspy/synspy/test/bench/command"
	"github.com/synspy/synspy/test/bench/tracer"
)

// rejectModule is what a firewall that rejects has loaded: while it has no rules, nothing pays for it.
const rejectModule = "nft_reject_inet"

// guestBase is where the guest has the synspy to compare with.
const guestBase = "/usr/bin/synspy-base"

// instructionsPlan is a whole run of bench instructions.
type instructionsPlan struct {
	count      countConfig
	vm, kernel string
	dir, docs  string
	keep       string // file to write figures to
	guard      string // file to compare figures with
	baseCommit string // to compare with where the file is of other builds
	from       string // file of an earlier run, instead of counting
	boots      int
	countFlags []string // passed on to the guest
}

func (p *instructionsPlan) addFlags(flags *flag.FlagSet) {
	flags.StringVar(&p.count.synspy, "synspy", "bin/synspy", "`path` of synspy, static")
	flags.StringVar(&p.count.base, "base", "", "`path` of another synspy, to compare with")
	flags.StringVar(&p.vm, "vm", "bin/vm", "`path` of test/vm's program")
	flags.StringVar(&p.kernel, "kernel", "6.12", "`name` of the virtual machine's kernel, see bin/vm kernels")
	flags.StringVar(&p.dir, "dir", "bin", "keep instructions.json in this `directory`")
	flags.StringVar(&p.docs, "docs", "", "write the tables into this Markdown `file`")
	flags.StringVar(&p.keep, "keep", "", "write what synspy adds to this `file`")
	flags.StringVar(&p.guard, "guard", "", "fail if synspy adds more than this `file` says")
	flags.StringVar(&p.baseCommit, "base-commit", "HEAD~1", "compare with this `commit` where the file was counted with other builds")
	flags.StringVar(&p.from, "from", "", "take what an earlier run has left in this `file` instead of counting")
	flags.IntVar(&p.boots, "boots", 1, "count so often, in a machine each: tells the spread")
	p.count.addFlags(flags)
}

// Run boots machines whose clock counts instructions, and prints what
// operations of the network cost there.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench instructions", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p instructionsPlan
	p.addFlags(flags)
	peer := flags.String("peer", os.Getenv("PEER"), "`path` of the bpftrace script (default $PEER, or the one in "+command.PeerScripts+" for this bpftrace)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "verbs", "backends", "operations", "chunks", "programs":
			p.countFlags = append(p.countFlags, "-"+f.Name+"="+f.Value.String())
		}
	})
	if p.count.wants(tracer.VerbScript) && p.from == "" {
		p.count.peer = command.FindPeer(ctx, *peer, stderr)
	}
	if p.from != "" {
		all, err := readInstructions(p.from)
		if err != nil {
			return err
		}
		return p.tell(all, stdout)
	}
	versions, err := findBuilds(ctx, p.vm, p.kernel)
	if err != nil {
		return err
	}
	if p.guard != "" {
		return p.runGuard(ctx, versions, stdout, stderr)
	}
	all, err := p.boot(ctx, versions, stderr)
	if err != nil {
		return err
	}
	return p.tell(all, stdout)
}

// tell prints what was counted, and writes it into the files asked for.
func (p *instructionsPlan) tell(all *instructions, stdout io.Writer) (err error) {
	if err := renderInstructions(stdout, all); err != nil {
		return err
	}
	if p.docs != "" {
		err = writeBenchmarks(p.docs, all)
	}
	if p.keep != "" {
		err = errors.Join(err, all.keep(p.keep))
	}
	return err
}

// readInstructions reads what an earlier run has left.
func readInstructions(path string) (*instructions, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	var all instructions
	if err := json.Unmarshal(content, &all); err != nil {
		return nil, fmt.Errorf("read counts in %s: %w", path, err)
	}
	return &all, nil
}

// runGuard compares with the file of figures or, where that was counted with other builds, with
// synspy as it was before the last commit.
func (p *instructionsPlan) runGuard(ctx context.Context, versions builds, stdout, stderr io.Writer) error {
	kept, err := readKept(p.guard)
	if err != nil {
		return err
	}
	if versions != kept.Builds && p.count.base == "" {
		fmt.Fprintf(stdout, "%s was counted with %+v, and here are %+v: comparing with %s instead\n", p.guard, kept.Builds, versions, p.baseCommit)
		p.count.base, err = buildBase(ctx, p.baseCommit, p.dir, stderr)
		switch {
		case errors.Is(err, errNoBase):
			fmt.Fprintln(stdout, "SKIPPED:", err)
			return nil
		case err != nil:
			return err
		case p.count.base == "":
			fmt.Fprintf(stdout, "what runs in the kernel is what it was at %s\n", p.baseCommit)
			return nil
		}
	}
	changes, err := p.countChanges(ctx, kept, versions, stderr)
	if err == nil && slices.ContainsFunc(changes, change.dearer) {
		var again []change
		again, err = p.countChanges(ctx, kept, versions, stderr)
		changes = cheaperOf(changes, again)
	}
	if err != nil {
		return err
	}
	return renderChanges(stdout, changes)
}

func (p *instructionsPlan) countChanges(ctx context.Context, kept *keptCosts, versions builds, stderr io.Writer) ([]change, error) {
	all, err := p.boot(ctx, versions, stderr)
	if err != nil {
		return nil, err
	}
	return all.changes(kept)
}

// boot counts as often as asked for, and leaves everything in a file.
func (p *instructionsPlan) boot(ctx context.Context, versions builds, stderr io.Writer) (*instructions, error) {
	all := instructions{Builds: versions}
	for range p.boots {
		got, err := p.bootOnce(ctx, stderr)
		if err != nil {
			return nil, err
		}
		all.Boots = append(all.Boots, got)
	}
	content, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(p.dir, "instructions.json"), append(content, '\n'), 0o644); err != nil {
		return nil, fmt.Errorf("keep counts: %w", err)
	}
	return &all, nil
}

// bootOnce counts in one machine.
func (p *instructionsPlan) bootOnce(ctx context.Context, stderr io.Writer) (*counting, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	const guestCounts = "/root/counts.json"
	out := filepath.Join(p.dir, "counts.guest")
	args := []string{p.vm, "run", "--kernel", p.kernel, "--memory", "3G", "--timeout", "40m",
		// Addresses are the same each time: they decide how keys hash.
		"--accel", "tcg,thread=single", "--icount", "--smp", "1", "--append", "nokaslr", "--module", rejectModule,
		"--file", p.count.synspy + ":" + command.GuestSynspy, "--file", self + ":" + command.GuestBench, "--out", guestCounts + ":" + out}
	argv := append([]string{command.GuestBench, "count", "-out", guestCounts}, p.countFlags...)
	if p.count.base != "" {
		args = append(args, "--file", p.count.base+":"+guestBase)
		argv = append(argv, "-base", guestBase)
	}
	if p.count.peer != "" {
		bpftrace, err := exec.LookPath("bpftrace")
		if err != nil {
			return nil, err
		}
		args = append(args, "--file-with-libs", bpftrace, "--file", p.count.peer+":"+command.GuestPeer)
		argv = append(argv, "-peer", command.GuestPeer)
	}
	if err := command.Run(ctx, stderr, args[0], append(append(args[1:], "--"), argv...)...); err != nil {
		return nil, fmt.Errorf("count instructions: %w", err)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	var got counting
	return &got, errors.Join(json.Unmarshal(content, &got), os.Remove(out))
}

// instructions is a whole run's result.
type instructions struct {
	Builds builds      `json:"builds"`
	Boots  []*counting `json:"boots"`
}
