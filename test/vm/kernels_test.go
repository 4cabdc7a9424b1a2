// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestKernelTable(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range kernelTable {
		if seen[k.name] {
			t.Errorf("kernel %s is there twice", k.name)
		}
		seen[k.name] = true
		if _, ok := machines[k.arch]; !ok {
			t.Errorf("kernel %s: no machine for %s", k.name, k.arch)
		}
		if k.standard != "" && !slices.Contains(allBackends, k.standard) {
			t.Errorf("kernel %s: no backend %q", k.name, k.standard)
		}
		for _, e := range k.cannot {
			if e.reason == "" || e.backend != "" &&
				!slices.Contains(allBackends, e.backend) {
				t.Errorf("kernel %s: exception %+v has no reason, or an unknown backend", k.name, e)
			}
		}
	}
	if _, err := kernelsByName([]string{"6.12", "2.4"}); !errors.Is(err, errUsage) {
		t.Errorf("unknown kernel: got %v", err)
	}
	all, err := kernelsByName(nil)
	if err != nil || len(all) < len(kernelTable)-1 {
		t.Errorf("all kernels: got %d, %v", len(all), err)
	}
	standard, err := kernelsByName([]string{standardKernels})
	if err != nil || len(standard) < 3 || len(standard) == len(all) {
		t.Errorf("standard kernels: got %d, %v", len(standard), err)
	}
	for _, backend := range allBackends {
		if !slices.ContainsFunc(standard, func(k kernel) bool {
			return k.standard == backend
		}) {
			t.Errorf("no standard kernel runs the end-to-end tests with %s", backend)
		}
	}
}

func TestReason(t *testing.T) {
	k := kernel{cannot: []exception{
		{backend: "trampoline", reason: "too old"},
		{scenario: "policy-*", reason: "no XFRM"},
		{backend: "kprobe", scenario: "slow-accept", reason: "too slow"},
	}}
	for _, test := range []struct{ scenario, backend, want string }{
		{"slow-accept", "trampoline", "too old"},
		{"", "trampoline", "too old"},
		{"", "kprobe", ""},
		{"policy-ipv6", "tracepoint", "no XFRM"},
		{"slow-accept", "kprobe", "too slow"},
		{"slow-accept", "tracepoint", ""},
	} {
		if got := k.reason(test.scenario, test.backend); got != test.want {
			t.Errorf("%q by %s: got %q, want %q", test.scenario, test.backend, got,
				test.want)
		}
	}
}

func TestIsImage(t *testing.T) {
	k := kernel{arch: "amd64", flavour: "cloud", series: "6.16"}
	for name, want := range map[string]bool{
		"linux-image-6.16.12+deb13-cloud-amd64":          true,
		"linux-image-6.16.12+deb13-cloud-amd64-unsigned": false,
		"linux-image-6.16.12+deb13-rt-amd64":             false,
		"linux-image-6.16-cloud-amd64":                   true,
		"linux-image-6.1.0-50-cloud-amd64":               false,
		"linux-image-6.160.1-cloud-amd64":                false,
		"linux-image-cloud-amd64":                        false,
		"linux-headers-6.16.12+deb13-cloud-amd64":        false,
	} {
		if got := k.isImage(name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	k.series = ""
	if k.isImage("linux-image-cloud-amd64") {
		t.Error("no series: took an image")
	}
}

func TestImage(t *testing.T) {
	index := packageIndex{}
	for _, version := range []string{"6.16.3", "6.16.9", "6.17.8"} {
		name := "linux-image-" + version + "+deb13-cloud-amd64"
		index[name] = []debPackage{{name: name, version: version + "-1"}}
	}
	k := kernel{arch: "amd64", flavour: "cloud", series: "6.16"}
	if got, err := index.image(k, strings.Compare); err != nil || got.version != "6.16.9-1" {
		t.Errorf("got %q, %v", got.version, err)
	}
	k.series = "6.15"
	if _, err := index.image(k, strings.Compare); !errors.Is(err, errNotInIndex) {
		t.Errorf("a series that is gone: got %v", err)
	}
}
