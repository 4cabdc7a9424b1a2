// SPDX-License-Identifier: Apache-2.0

package event

// What is unknown is absent from JSON: `omitzero` asks these. A value beyond the
// last one has no name, so it is unknown too.

// IsZero reports whether the cause is unknown.
func (c Cause) IsZero() bool { return c == CauseUnknown || c >= NumCauses }

// IsZero reports whether the stage is unknown.
func (s Stage) IsZero() bool { return s == StageUnknown || s >= NumStages }

// IsZero reports whether the action is unknown.
func (a Action) IsZero() bool { return a == ActionUnknown || a >= NumActions }

// IsZero reports whether the proof is unknown.
func (p Proof) IsZero() bool { return p == ProofUnknown || p >= NumProofs }

// IsZero reports whether nothing is known of what proves a cause.
func (k Kernel) IsZero() bool {
	return k.Function == "" && len(k.Counters) == 0 && k.Reason == "" && k.Hook == ""
}
