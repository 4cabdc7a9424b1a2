// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests that run the real synspy as a process of its own,
// put traffic with a known fate into private network namespaces, and read what
// it writes. They trust nothing of synspy's own: the records are decoded by
// types of their own, the truth comes from the wire and from the namespace's
// /proc/net/netstat.
//
// The environment chooses what is tested:
//
//	SYNSPY               the program (default: built once with go, or the one installed)
//	SYNSPY_BACKEND       its --backend (default: auto)
//	SYNSPY_E2E_WITHOUT   tools that are known to be missing: tcpdump,node
package e2e
