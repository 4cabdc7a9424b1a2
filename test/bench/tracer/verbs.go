// SPDX-License-Identifier: Apache-2.0

package tracer

// Verbs of variants.
const (
	VerbUntraced = "untraced"
	VerbTrace    = "trace"
	VerbTraceAll = "trace-all" // --rate 0: a record for each drop
	VerbDiagnose = "diagnose"
	VerbEmpty    = "empty"
	VerbScript   = "script"
)
