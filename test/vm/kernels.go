// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
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
	// standard says the kernel belongs to the matrix when none is named.
	standard bool
}

// kernelTable lists every kernel that can be asked for by name. A name that is a
// version promises that version; any other name follows its suite.
var kernelTable = []kernel{
	{name: "5.10", arch: "amd64", suite: "bullseye", flavour: "cloud"},
	// The newest 5.10; bullseye gets updates here only. Mirrors of it have been
	// seen with files missing, so the row above is the dependable one.
	{name: "5.10-security", arch: "amd64", archive: security, suite: "bullseye-security", flavour: "cloud"},
	{name: "6.1", arch: "amd64", suite: "bookworm", flavour: "cloud", standard: true},
	{name: "6.12", arch: "amd64", suite: "trixie", flavour: "cloud", standard: true},
	{name: "newest", arch: "amd64", suite: "sid", flavour: "cloud", standard: true},
	// At times ahead of sid: backports may come from a branch sid has not taken yet.
	{name: "backports", arch: "amd64", suite: "trixie-backports", flavour: "cloud"},
	{name: "6.12-rt", arch: "amd64", suite: "trixie", flavour: "rt"},
	{name: "5.10-arm64", arch: "arm64", suite: "bullseye", flavour: "cloud"},
	{name: "6.12-arm64", arch: "arm64", suite: "trixie", flavour: "cloud"},
}

// metapackage is the package that always depends on the flavour's current kernel.
func (k kernel) metapackage() string {
	return "linux-image-" + k.flavour + "-" + k.arch
}

// kernelsByName looks kernels up; no names mean the standard ones.
func kernelsByName(names []string) ([]kernel, error) {
	var found []kernel
	if len(names) == 0 {
		for _, k := range kernelTable {
			if k.standard {
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
	return kernel{}, fmt.Errorf("%w: no kernel %q (known: %s)", errUsage, name, strings.Join(known, ", "))
}
