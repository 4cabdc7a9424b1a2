// SPDX-License-Identifier: Apache-2.0

// Package app wires each verb of the command line: it hands values from the
// probe to the owners' table and on to rendering, none of which know each other.
package app
