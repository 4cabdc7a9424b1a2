// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// kernel is one row of the table of kernels: where Debian keeps it, never which
// package it is, because package names roll with every update.
type kernel struct {
	name    string
	arch    string  // Debian's name of the architecture
	archive archive // the archive the suite is published in
	suite   string
	flavour string // "cloud" boots without a disk driver in sight; "rt" is PREEMPT_RT
	// series is set where the suite's metapackage has moved on and the kernel is
	// one of those left behind: the newest image of that version is taken.
	series string
	// standard says the kernel is one of those that CI boots, and names the backend
	// that then runs the end-to-end tests.
	standard string
	// spared is the backend that CI leaves to the other standard kernels, to end in time.
	spared string
	// slow says that programs take ten times as long to load: no bpf_loop. The standard
	// matrix runs only shortEndToEnd there.
	slow bool
	// whole says that functions can be hooked and every scenario held: none may say there,
	// by another backend than tracepoints, that it cannot.
	whole bool
	// elective leaves the kernel out unless it is named.
	elective bool
	cannot   []exception
	// cmdline is appended to the kernel's command line.
	cmdline string
}

// exception is squares of the table that cannot be, with the reason. It is a
// claim that the matrix tests: a square that works after all fails it. What a kernel
// lacks for a scenario, and what it does not tell, synspy says itself.
type exception struct {
	backend  string // empty: any
	scenario string // pattern of names; empty: all of them
	reason   string
}

// bpfModule is Debian's CONFIG_LSM of 5.10 with bpf, which later ones list themselves: some
// scenarios need a security module that refuses.
const bpfModule = "lsm=lockdown,yama,loadpin,safesetid,integrity,apparmor,selinux,smack,tomoyo,bpf"

// kernelTable lists every kernel that can be asked for by name. A name that is a
// version promises that version; any other name follows its suite.
var kernelTable = []kernel{
	{name: "5.10", arch: "amd64", suite: "bullseye", flavour: "cloud", standard: "kprobe",
		spared: "trampoline", slow: true, cmdline: bpfModule},
	// The newest 5.10; bullseye gets updates here only. Mirrors of it have been
	// seen with files missing, so the row above is the dependable one.
	{name: "5.10-security", arch: "amd64", archive: security, suite: "bullseye-security",
		flavour: "cloud", elective: true, slow: true,
		cmdline: bpfModule},
	{name: "6.1", arch: "amd64", suite: "bookworm", flavour: "cloud"},
	{name: "6.12", arch: "amd64", suite: "trixie", flavour: "cloud", standard: "tracepoint",
		spared: "kprobe", whole: true},
	// Backports keep what they once had, until Debian clears it away.
	{name: "6.16", arch: "amd64", suite: "trixie-backports", flavour: "cloud", series: "6.16",
		whole: true},
	{name: "newest", arch: "amd64", suite: "sid", flavour: "cloud", standard: "trampoline",
		spared: "tracepoint", whole: true},
	// At times ahead of sid: backports may come from a branch sid has not taken yet.
	{name: "backports", arch: "amd64", suite: "trixie-backports", flavour: "cloud",
		whole: true},
	{name: "6.12-rt", arch: "amd64", suite: "trixie", flavour: "rt", whole: true},
	{name: "newest-rt", arch: "amd64", suite: "sid", flavour: "rt", whole: true},
	{name: "5.10-arm64", arch: "arm64", suite: "bullseye", flavour: "cloud",
		cannot: []exception{
			{backend: "trampoline", reason: "arm64 takes no trampolines before Linux 6.4"},
			{backend: "tracepoint",
				reason: "its kfree_skb is in pieces and tells no reason: one packet would be taken for another"},
		}},
	{name: "6.12-arm64", arch: "arm64", suite: "trixie", flavour: "cloud"},
}

// metapackage is the package that always depends on the flavour's current kernel.
func (k kernel) metapackage() string {
	return "linux-image-" + k.flavour + "-" + k.arch
}

// isImage reports whether a package is an image of the kernel's series.
func (k kernel) isImage(name string) bool {
	version, ok := strings.CutPrefix(name, "linux-image-")
	if !ok || k.series == "" {
		return false
	}
	version, ok = strings.CutSuffix(version, "-"+k.flavour+"-"+k.arch)
	return ok && (version == k.series || strings.HasPrefix(version, k.series+".") ||
		strings.HasPrefix(version, k.series+"+"))
}

// reason says why a square of the table cannot be; empty if it should. A scenario
// of "" asks whether the backend as a whole cannot.
func (k kernel) reason(scenario, backend string) string {
	for _, e := range k.cannot {
		if e.backend != "" && e.backend != backend {
			continue
		}
		if match, err := path.Match(e.scenario, scenario); e.scenario == "" || match &&
			err == nil {
			return e.reason
		}
	}
	return ""
}

// standardKernels is the name of those that CI boots.
const standardKernels = "standard"

// kernelsByName looks kernels up; no names mean all that are not elective.
func kernelsByName(names []string) ([]kernel, error) {
	var found []kernel
	if len(names) == 0 || slices.Equal(names, []string{standardKernels}) {
		for _, k := range kernelTable {
			if len(names) == 0 && !k.elective || len(names) > 0 && k.standard != "" {
				found = append(found, k)
			}
		}
		return found, nil
	}
	for _, name := range names {
		k, err := kernelByName(name)
		if err != nil {
			return nil, err
		}
		found = append(found, k)
	}
	return found, nil
}

func kernelByName(name string) (kernel, error) {
	var known []string
	for _, k := range kernelTable {
		if k.name == name {
			return k, nil
		}
		known = append(known, k.name)
	}
	return kernel{}, fmt.Errorf("%w: no kernel %q (known: %s, and %s for those of CI)",
		errUsage, name,
		strings.Join(known, ", "), standardKernels)
}
