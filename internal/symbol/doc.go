// SPDX-License-Identifier: Apache-2.0

// Package symbol names addresses in processes and in the kernel: by the symbol tables of the files
// that a process has mapped, by the tables that Go binaries keep when stripped, by the perf map
// that a runtime writes of what it compiles, and by the kernel's own list.
//
// Everything it reads of a process is hostile. Each file is read in pieces of bounded size and in
// bounded time, a table is walked and never kept, and what does not fit is unknown. An address that
// nothing names stays a module and an offset; no name is ever guessed.
package symbol
