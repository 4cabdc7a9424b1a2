// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The shapes of the three suites: the kernel in the image package, the kernel in
// linux-binary-*, and two versions at once while a suite is in motion.
const packagesText = `Package: linux-image-cloud-amd64
Version: 6.1.2-1
Depends: linux-image-6.1.0-2-cloud-amd64 (= 6.1.2-1)
Description: meta
 Depends: linux-trap (= 1)
Filename: pool/meta.deb
SHA256: aa

Package: linux-image-6.1.0-2-cloud-amd64
Version: 6.1.2-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Filename: pool/image.deb
SHA256: bb

Package: kmod
Version: 30

Package: linux-image-split-amd64
Version: 7.2.9-1
Depends: linux-image-7.2.9 (= 7.2.9-1)

Package: linux-image-split-amd64
Version: 7.2.13-1
Depends: linux-base-split-amd64 (= 7.2.13-1), linux-image-7.2.13 (= 7.2.13-1)

Package: linux-base-split-amd64
Version: 7.2.13-1

Package: linux-image-7.2.13
Version: 7.2.13-1
Pre-Depends: linux-base (>= 4.17~)
Depends: dracut | linux-initramfs-tool, linux-binary-7.2.13 (= 7.2.13-1), linux-base-split-amd64 (= 7.2.13-1)

Package: linux-binary-7.2.13
Version: 7.2.13-0

Package: linux-binary-7.2.13
Version: 7.2.13-1

Package: linux-base
Version: 4.20

Package: linux-image-broken-amd64
Version: 1
Depends: linux-image-gone (= 1)
`

func linuxIndex(t *testing.T) packageIndex {
	t.Helper()
	index, err := parsePackages(strings.NewReader(packagesText), func(name string) bool {
		return strings.HasPrefix(name, "linux-")
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func TestParsePackages(t *testing.T) {
	index := linuxIndex(t)
	want := debPackage{
		name: "linux-image-cloud-amd64", version: "6.1.2-1", filename: "pool/meta.deb",
		sha256: "aa",
		depends: []dependency{
			{name: "linux-image-6.1.0-2-cloud-amd64", version: "6.1.2-1"}},
	}
	if diff := cmp.Diff([]debPackage{want}, index["linux-image-cloud-amd64"],
		cmp.AllowUnexported(debPackage{}, dependency{})); diff != "" {
		t.Error(diff)
	}
	if len(index["kmod"]) != 0 {
		t.Error("kept a package that was not wanted")
	}
}

func TestParseDepends(t *testing.T) {
	got := parseDepends("a (= 1:2-3), b (>= 2), c | d (= 1), e:any")
	want := []dependency{{name: "a", version: "1:2-3"}, {name: "b"}, {name: "e"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(dependency{})); diff != "" {
		t.Error(diff)
	}
}

func TestKernelPackages(t *testing.T) {
	index := linuxIndex(t)
	for _, test := range []struct {
		root string
		want []string
		err  error
	}{
		{root: "linux-image-cloud-amd64", want: []string{"linux-image-cloud-amd64 6.1.2-1",
			"linux-image-6.1.0-2-cloud-amd64 6.1.2-1"}},
		{root: "linux-image-split-amd64", want: []string{
			"linux-image-split-amd64 7.2.13-1", "linux-base-split-amd64 7.2.13-1",
			"linux-image-7.2.13 7.2.13-1", "linux-binary-7.2.13 7.2.13-1",
		}},
		{root: "linux-image-broken-amd64", err: errNotInIndex},
		{root: "linux-image-rt-amd64", err: errNotInIndex},
	} {
		t.Run(test.root, func(t *testing.T) {
			// By length, then text: enough to put 7.2.13 above 7.2.9.
			compare := func(a, b string) int {
				if len(a) != len(b) {
					return len(a) - len(b)
				}
				return strings.Compare(a, b)
			}
			root, err := index.newest(test.root, compare)
			var all []debPackage
			if err == nil {
				all, err = index.kernelPackages(root)
			}
			if !errors.Is(err, test.err) {
				t.Fatalf("got error %v, want %v", err, test.err)
			}
			var got []string
			for _, p := range all {
				got = append(got, p.name+" "+p.version)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReleaseSum(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	release := "Suite: x\nMD5Sum:\n " + strings.Repeat("cd", 16) +
		" 5 main/Packages.gz\nSHA256:\n " + sum + " 5 main/Packages.gz\n short 5 main/bad\n"
	if got, err := releaseSum(release, "main/Packages.gz"); err != nil || got != sum {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := releaseSum(release, "main/other"); !errors.Is(err, errNotInIndex) {
		t.Errorf("missing file: got %v", err)
	}
	if _, err := releaseSum(release, "main/bad"); err == nil {
		t.Error("malformed sum: got no error")
	}
}

func TestChooseMirror(t *testing.T) {
	const labelled = "Debian-Security|http://a.invalid/sec/\nOther|http://b.invalid/\nDebian|file:/mnt/cd\nDebian|http://c.invalid/debian\n"
	const bare = "|http://a.invalid/debian-security/\n|http://c.invalid/debian/\n"
	for _, test := range []struct {
		lines   string
		archive archive
		want    string
	}{
		{labelled, mainArchive, "http://c.invalid/debian/"},
		{labelled, security, "http://a.invalid/sec/"},
		{bare, mainArchive, "http://c.invalid/debian/"},
		{bare, security, "http://a.invalid/debian-security/"},
		{"Other|http://b.invalid/\n", mainArchive, ""},
	} {
		if got, _ := chooseMirror(test.lines, test.archive); got != test.want {
			t.Errorf("archive %d of %q: got %q, want %q", test.archive, test.lines, got,
				test.want)
		}
	}
}

func TestGoodSignature(t *testing.T) {
	for _, test := range []struct {
		status string
		want   bool
	}{
		{"[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AB Debian\n[GNUPG:] VALIDSIG CD\n", true},
		{"[GNUPG:] GOODSIG AB Debian\n[GNUPG:] ERRSIG CD\n[GNUPG:] NO_PUBKEY CD\n", true},
		{"[GNUPG:] GOODSIG AB Debian\n[GNUPG:] BADSIG CD\n", false},
		{"[GNUPG:] NO_PUBKEY CD\n", false},
		{"", false},
	} {
		if got := goodSignature(test.status); got != test.want {
			t.Errorf("%q: got %v", test.status, got)
		}
	}
}
