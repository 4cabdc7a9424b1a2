// SPDX-License-Identifier: Apache-2.0

package event

// Blind is a way to die that does not show as what it is: what the hooks of a run
// cannot prove on its kernel.
type Blind struct {
	Cause Cause  `json:"cause,omitzero"`
	Stage Stage  `json:"stage,omitzero"` // absent: wherever the cause can be
	Part  string `json:"part,omitempty"` // which of these deaths; absent: all of them
	// Shows is what is seen instead: ShowsNothing, ShowsUnattributed or a cause's name.
	// The cause's own name says that it is told by weaker proof, or with another action.
	Shows string `json:"shows"`
	Why   string `json:"why"`
}

// What a Blind shows that is no cause.
const (
	ShowsNothing      = "nothing"      // no record, and no counter of the ledger moves
	ShowsUnattributed = "unattributed" // no record; the ledger tells that something died
)

// Of reports whether it is about that cause at that stage.
func (b Blind) Of(cause Cause, stage Stage) bool {
	return b.Cause == cause && (b.Stage == StageUnknown || b.Stage == stage)
}

// Unseen reports whether no such death makes a record or moves the ledger.
func (b Blind) Unseen() bool { return b.Shows == ShowsNothing && b.Part == "" }
