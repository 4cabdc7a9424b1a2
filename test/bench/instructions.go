// SPDX-License-Identifier: Apache-2.0

package main

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
	"strings"
)

// rejectModule is what a firewall that rejects has loaded: what synspy watches for its sake
// is to be counted too.
const rejectModule = "nft_reject_inet"

// instructionsPlan is a whole run of bench instructions.
type instructionsPlan struct {
	count      countConfig
	vm, kernel string
	dir, docs  string
	boots      int
	countFlags []string // passed on to the guest
}

// runInstructions boots machines whose clock counts instructions, and prints what
// operations of the network cost there.
func runInstructions(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench instructions", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p instructionsPlan
	flags.StringVar(&p.count.synspy, "synspy", "bin/synspy", "`path` of synspy, static")
	flags.StringVar(&p.vm, "vm", "bin/vm", "`path` of test/vm's program")
	flags.StringVar(&p.kernel, "kernel", "6.12", "`name` of the virtual machine's kernel, see bin/vm kernels")
	flags.StringVar(&p.dir, "dir", "bin", "keep instructions.json in this `directory`")
	flags.StringVar(&p.docs, "docs", "", "write the tables into this Markdown `file`")
	flags.IntVar(&p.boots, "boots", 1, "count so often, in a machine each: tells the spread")
	peer := flags.String("peer", os.Getenv("PEER"), "`path` of the bpftrace script (default $PEER, or the one in "+peerScripts+" for this bpftrace)")
	p.count.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "verbs", "backends", "operations", "chunks", "programs":
			p.countFlags = append(p.countFlags, "-"+f.Name+"="+f.Value.String())
		}
	})
	if p.count.wants(verbScript) {
		p.count.peer = findPeer(ctx, *peer, stderr)
	}
	all := instructions{Builds: findBuilds(ctx)}
	for range p.boots {
		got, err := p.boot(ctx, stderr)
		if err != nil {
			return err
		}
		all.Boots = append(all.Boots, got)
		all.Builds.Kernel = got.Kernel
	}
	content, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.dir, "instructions.json"), append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep counts: %w", err)
	}
	if err := renderInstructions(stdout, &all); err != nil {
		return err
	}
	if p.docs != "" {
		return writeBenchmarks(p.docs, &all)
	}
	return nil
}

// boot counts in one machine.
func (p *instructionsPlan) boot(ctx context.Context, stderr io.Writer) (*counting, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	const guestCounts = "/root/counts.json"
	out := filepath.Join(p.dir, "counts.guest")
	args := []string{p.vm, "run", "--kernel", p.kernel, "--memory", "3G", "--timeout", "40m",
		// Addresses are the same each time: they decide how keys hash.
		"--accel", "tcg,thread=single", "--icount", "--smp", "1", "--append", "nokaslr", "--module", rejectModule,
		"--file", p.count.synspy + ":" + guestSynspy, "--file", self + ":" + guestBench, "--out", guestCounts + ":" + out}
	command := append([]string{guestBench, "count", "-out", guestCounts}, p.countFlags...)
	if p.count.peer != "" {
		bpftrace, err := exec.LookPath("bpftrace")
		if err != nil {
			return nil, err
		}
		args = append(args, "--file-with-libs", bpftrace, "--file", p.count.peer+":"+guestPeer)
		command = append(command, "-peer", guestPeer)
	}
	if err := runCommand(ctx, stderr, args[0], append(append(args[1:], "--"), command...)...); err != nil {
		return nil, fmt.Errorf("count instructions: %w", err)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	var got counting
	return &got, errors.Join(json.Unmarshal(content, &got), os.Remove(out))
}

// builds is what decides how many instructions something takes, besides synspy.
type builds struct {
	Kernel string `json:"kernel"`
	Clang  string `json:"clang"`
	QEMU   string `json:"qemu"`
}

// instructions is a whole run's result.
type instructions struct {
	Builds builds      `json:"builds"`
	Boots  []*counting `json:"boots"`
}

// findBuilds asks what is installed here. The clang is the one that make generate uses.
func findBuilds(ctx context.Context) builds {
	return builds{Clang: firstLine(ctx, "clang-19"), QEMU: firstLine(ctx, "qemu-system-x86_64")}
}

func firstLine(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
