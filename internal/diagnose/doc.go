// SPDX-License-Identifier: Apache-2.0

// Package diagnose turns what was seen in a window into a diagnosis. It is pure: evidence goes in,
// an event.Diagnosis comes out; who collected it, and whether live or from a file, is not its
// business. It runs the rules, and says the verdict.
//
// A rule names a culprit only if the evidence shows it. What was not collected is nil or
// listed in Evidence.Missing, and the diagnosis says which findings that rules out.
package diagnose
