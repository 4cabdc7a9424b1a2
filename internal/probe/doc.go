// SPDX-License-Identifier: Apache-2.0

// Package probe is one run of the BPF side: opened, started, read, stopped, closed. Its packages
// follow the order of a run: facts about this kernel, the plan made from them, load, holders of the
// listeners there are, the ledger's opening, messages, what is counted of each listener, the
// ledger's closing. Besides internal/bpf and the lab, which refuses packets by BPF, they alone use
// cilium/ebpf.
package probe
