// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// debPackage is what a Packages index says about one package.
type debPackage struct {
	name, version    string
	filename, sha256 string
	depends          []dependency
}

// dependency is one alternative-free entry of Depends or Pre-Depends. Entries
// with alternatives never lead to a kernel, so they are not kept.
type dependency struct {
	name    string
	version string // set when the entry demands exactly this version
}

var errNotInIndex = errors.New("not in the index")

// packageIndex maps a package's name to its versions; a suite in motion, such as
// sid, can list more than one.
type packageIndex map[string][]debPackage

// parsePackages reads the stanzas whose package name is wanted. Skipping the
// others matters: the index of a suite has some 60 MB.
func parsePackages(r io.Reader, wanted func(name string) bool) (packageIndex, error) {
	index := packageIndex{}
	var p debPackage
	flush := func() {
		if p.name != "" {
			index[p.name] = append(index[p.name], p)
		}
		p = debPackage{}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 4<<20) // Provides of a Rust package can be one very long line
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			flush()
			continue
		}
		field, value, found := strings.Cut(line, ":")
		if !found || line[0] == ' ' {
			continue
		}
		value = strings.TrimSpace(value)
		if field == "Package" {
			if wanted(value) {
				p.name = value
			}
			continue
		}
		if p.name == "" {
			continue
		}
		switch field {
		case "Version":
			p.version = value
		case "Filename":
			p.filename = value
		case "SHA256":
			p.sha256 = value
		case "Depends", "Pre-Depends":
			p.depends = append(p.depends, parseDepends(value)...)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read package index: %w", err)
	}
	flush()
	return index, nil
}

// parseDepends reads a Depends line: "a (= 1), b (>= 2), c | d".
func parseDepends(value string) []dependency {
	var depends []dependency
	for entry := range strings.SplitSeq(value, ",") {
		if strings.Contains(entry, "|") {
			continue
		}
		name, constraint, _ := strings.Cut(strings.TrimSpace(entry), " ")
		d := dependency{name: strings.TrimSuffix(name, ":any")}
		if version, ok := strings.CutPrefix(strings.Trim(constraint, "() "), "= "); ok {
			d.version = strings.TrimSpace(version)
		}
		if d.name != "" {
			depends = append(depends, d)
		}
	}
	return depends
}

// newest gives the highest version of a package, by Debian's order of versions.
func (index packageIndex) newest(name string, compare func(a, b string) int) (debPackage, error) {
	versions := index[name]
	if len(versions) == 0 {
		return debPackage{}, fmt.Errorf("find package %s: %w", name, errNotInIndex)
	}
	return slices.MaxFunc(versions, func(a, b debPackage) int {
		return compare(a.version, b.version)
	}), nil
}

// image gives the newest image of a series that a suite still holds.
func (index packageIndex) image(k kernel, compare func(a, b string) int) (debPackage, error) {
	var images []debPackage
	for name, versions := range index {
		if k.isImage(name) {
			images = append(images, versions...)
		}
	}
	if len(images) == 0 {
		return debPackage{}, fmt.Errorf("find an image of Linux %s: %w", k.series,
			errNotInIndex)
	}
	return slices.MaxFunc(images, func(a, b debPackage) int {
		return compare(a.version, b.version)
	}), nil
}

// kernelPackages gives root and all it is made of: the linux-* packages that it
// and they depend on at one exact version. That covers a suite whose image
// package holds the kernel, and newer ones where it only points to linux-binary-*
// and linux-modules-*, yet leaves out tools such as linux-base (>= 4.12~).
func (index packageIndex) kernelPackages(root debPackage) ([]debPackage, error) {
	all := []debPackage{root}
	seen := map[string]bool{root.name: true}
	for i := 0; i < len(all); i++ {
		for _, d := range all[i].depends {
			if d.version == "" || !strings.HasPrefix(d.name, "linux-") || seen[d.name] {
				continue
			}
			seen[d.name] = true
			at := slices.IndexFunc(index[d.name], func(p debPackage) bool {
				return p.version == d.version
			})
			if at < 0 {
				return nil, fmt.Errorf("find package %s (= %s), which %s needs: %w",
					d.name, d.version, all[i].name, errNotInIndex)
			}
			all = append(all, index[d.name][at])
		}
	}
	return all, nil
}

// releaseSum finds the SHA256 of a file in the text of a suite's Release file.
func releaseSum(release, path string) (string, error) {
	inSums := false
	for line := range strings.Lines(release) {
		if line[0] != ' ' {
			inSums = strings.HasPrefix(line, "SHA256:")
			continue
		}
		fields := strings.Fields(line)
		if !inSums || len(fields) != 3 || fields[2] != path {
			continue
		}
		if _, err := strconv.ParseInt(fields[1], 10, 64); err != nil ||
			len(fields[0]) != 64 {
			return "", fmt.Errorf("read SHA256 of %s: malformed line %q", path, line)
		}
		return fields[0], nil
	}
	return "", fmt.Errorf("find SHA256 of %s: %w", path, errNotInIndex)
}
