// SPDX-License-Identifier: Apache-2.0

// Package kernel tells facts about the running kernel that need no BPF: its
// release, CPUs, symbols, privileges, clocks and network namespaces.
package kernel
