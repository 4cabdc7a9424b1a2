// SPDX-License-Identifier: Apache-2.0

// Package event holds synspy's domain types: the causes a handshake packet can
// die of, the kernel counters that prove them, and the records users read.
//
// It is the ground floor: it imports the standard library only, and everything
// above it hands its values upward without changing them.
package event
