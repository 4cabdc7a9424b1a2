// SPDX-License-Identifier: Apache-2.0

// Package probe puts the BPF programs into the kernel and reads what they say.
//
// Its files follow the order of a run: facts about this kernel, the plan made
// from them, loading, attaching, the ledger's opening, the messages, the
// ledger's closing. Besides internal/bpf it alone uses cilium/ebpf.
package probe
