// SPDX-License-Identifier: Apache-2.0

package event

// Severity says what a finding means for the drops seen.
type Severity string

// The severities, in the order findings are told in.
const (
	SeverityCause        Severity = "cause"        // the drops come from this
	SeverityContributing Severity = "contributing" // it made them more, or worse for the client
	SeverityNote         Severity = "note"         // worth knowing; it dropped nothing
)

// Confidence says how sure a finding is.
type Confidence string

// The confidences, surest first.
const (
	ConfidenceProven   Confidence = "proven"   // counted or seen directly
	ConfidenceLikely   Confidence = "likely"   // the evidence fits this, and nothing else that was looked for
	ConfidencePossible Confidence = "possible" // it fits, and something else might
)

// Diagnosis is the result of one session of diagnose (type "diagnosis"). Lists that
// hold nothing are empty where DESIGN names them, else absent.
type Diagnosis struct {
	Header
	// Origin is the run that was watched; where that was recorded and judged later, JudgedBy
	// says by whom.
	Origin
	Kernel   string      `json:"kernel,omitempty"`
	JudgedBy *Program    `json:"judged_by,omitempty"`
	Time     Time        `json:"time,omitzero"` // when the window began
	WindowS  float64     `json:"window_s"`      // seconds watched
	Verdict  string      `json:"verdict"`       // one sentence
	Findings []Finding   `json:"findings"`      // causes first
	Counts   []Count     `json:"counts,omitempty"`
	Ledger   []LedgerRow `json:"ledger"`
	Timeline []Timeline  `json:"timeline"` // one a listener with anything to show, worst first
	// Overflow is that of the summary: what no verdict is about.
	Overflow *Overflow `json:"overflow,omitempty"`
	// Balanced is that of the summary; nil where no ledger was kept.
	Balanced  *bool          `json:"balanced,omitempty"`
	Unchecked uint64         `json:"unchecked,omitempty"` // see [Unchecked]
	Listeners []ListenerView `json:"listeners,omitempty"` // in the order of Timeline
	Unlisted  *Unlisted      `json:"unlisted,omitempty"`  // the other listeners; nil where there are none
	// GroupSyns came to those listeners together that have no count of their own: they share
	// ports by SO_REUSEPORT, and which of them each came to is not known.
	GroupSyns *uint64 `json:"group_syns,omitempty"`
	// Handshakes is what became of those that reached the listeners, nil where it is not known.
	Handshakes *Handshakes `json:"handshakes,omitempty"`
	// Unsure packets died without a record of their own, and whether the filter asks for them
	// is not known; they are in no other number.
	Unsure      uint64          `json:"unsure,omitempty"`
	Clients     []ClientCount   `json:"clients,omitempty"`      // most drops first, bounded
	ClientsSeen *uint64         `json:"clients_seen,omitempty"` // different addresses that lost packets; nil where they are not known
	Cannot      []CannotSupport `json:"cannot,omitempty"`       // what the input could not support
}

// Handshakes is what became, in sum, of the handshakes that reached listeners: Begun is all the
// others together but Waiting and Late, which are parts of Finished.
type Handshakes struct {
	Begun    uint64 `json:"begun"`    // answered by a SYN-ACK in the window, or half-open when it began
	Finished uint64 `json:"finished"` // entered an accept queue
	Ended    uint64 `json:"ended"`    // by an RST of the client that fits
	Died     uint64 `json:"died"`     // reset, expired, or gone with their listener
	Cookies  uint64 `json:"cookies"`  // answered by a SYN cookie that did not come back
	// Held, Unanswered and Open were half-open at the end: those whose ACK TCP_DEFER_ACCEPT
	// ignored, those whose SYN-ACK had no answer for YoungHandshakeMs, and those that were
	// younger.
	Held        uint64 `json:"held"`
	Unanswered  uint64 `json:"unanswered"`
	Open        uint64 `json:"open"`
	Unaccounted uint64 `json:"unaccounted"` // whatever became of them was not seen

	Waiting uint64  `json:"waiting"`        // of the finished, those in an accept queue at the end
	Late    *uint64 `json:"late,omitempty"` // of the finished, those that had a SYN dropped before
}

// YoungHandshakeMs is how old a half-open handshake must be, in milliseconds, to be called
// unanswered: its SYN-ACK has been sent three times.
const YoungHandshakeMs = 3000

// Unlisted is how many listeners a diagnosis does not list, and how many SYNs came to them.
type Unlisted struct {
	Listeners uint64  `json:"listeners"`
	Syns      *uint64 `json:"syns,omitempty"`
}

// Finding is one thing found.
type Finding struct {
	ID       FindingID `json:"id"`
	Severity Severity  `json:"severity"`
	Title    string    `json:"title"`
	// Listener is absent where a finding is about none, or not about one alone.
	Listener  *Listener  `json:"listener,omitempty"`
	Processes []Process  `json:"processes,omitempty"` // whom it is about, bounded
	Evidence  []Evidence `json:"evidence"`
	Fix       []string   `json:"fix"` // whole sentences, in the order to try
	Knobs     []Knob     `json:"knobs,omitempty"`
	Owner     string     `json:"owner"` // application, platform, node, network or client
	// Confidence is how sure it is, and Settles what would make it surer.
	Confidence Confidence `json:"confidence,omitempty"`
	Settles    string     `json:"settles,omitempty"`
}

// Evidence is one thing seen. Value is a number, a text or a bool; Unit is
// empty for texts and bools.
type Evidence struct {
	What  string `json:"what"`
	Value any    `json:"value"`
	Unit  string `json:"unit,omitempty"`
}

// Knob is one setting that a fix names. Now is its present value, absent where that is unknown.
type Knob struct {
	Name  string `json:"name"`            // "net.core.somaxconn", "listen() backlog", "cpu.max"
	Now   string `json:"now,omitempty"`   // "128"
	Try   string `json:"try,omitempty"`   // "1024"
	Where string `json:"where,omitempty"` // the file, unit, pod spec or call that sets it
	Why   string `json:"why,omitempty"`   // why that value
}

// Timeline is how one listener's queues went, in time order.
type Timeline struct {
	Listener *Listener       `json:"listener,omitempty"`
	StepMs   uint32          `json:"step_ms"` // what a point covers, from its offset on
	Points   []TimelinePoint `json:"points"`  // at most MaxTimelinePoints
}

// MaxTimelinePoints bounds a timeline; a longer window has longer steps.
const MaxTimelinePoints = 1200

// TimelinePoint is one step. Queues are the longest seen in it, absent where
// they were not read; arrivals, accepts and drops are how many fell in it, absent
// where they were not counted.
type TimelinePoint struct {
	OffsetMs    uint32    `json:"offset_ms"` // since the window began
	AcceptQueue *Queue    `json:"accept_queue,omitempty"`
	SynQueue    *SynQueue `json:"syn_queue,omitempty"`
	Arrivals    *uint64   `json:"arrivals,omitempty"` // SYNs
	Retries     *uint64   `json:"retries,omitempty"`  // of the arrivals, those of handshakes that had a SYN dropped before
	Accepts     *uint64   `json:"accepts,omitempty"`
	Drops       *uint64   `json:"drops,omitempty"` // dropped or reset, not ignored
	Throttled   bool      `json:"throttled,omitempty"`
}

// ListenerView is what was seen of one listener. Numbers that were not counted are absent.
type ListenerView struct {
	Listener  Listener  `json:"listener"`
	Processes []Process `json:"processes,omitempty"`
	Counts    []Count   `json:"counts,omitempty"`
	Syns      *uint64   `json:"syns,omitempty"`
	Accepts   *uint64   `json:"accepts,omitempty"`
	Drops     uint64    `json:"drops"` // dropped or reset, not ignored
	// LongestGapMs is the longest time without an accept while the queue held something, in
	// milliseconds.
	LongestGapMs *uint64 `json:"longest_gap_ms,omitempty"`
	// AcceptWaits is a histogram of the time in the queue.
	AcceptWaits []Bucket      `json:"accept_waits,omitempty"`
	Stacks      []ThreadStack `json:"stacks,omitempty"` // where its threads were, most time first, bounded
	WhatIf      *WhatIf       `json:"what_if,omitempty"`
}

// Bucket is one bar of a histogram of milliseconds: more than that of the bucket
// before, up to ToMs; ToMs is nil in the last one.
type Bucket struct {
	ToMs  *float64 `json:"to_ms,omitempty"`
	Count uint64   `json:"count"`
}

// ThreadStack is where a thread of a listener's process was. Frames are innermost first.
type ThreadStack struct {
	PID     uint32   `json:"pid"`
	TID     uint32   `json:"tid,omitempty"`
	Comm    string   `json:"comm,omitempty"`
	State   string   `json:"state,omitempty"`   // "R", "S", "D", "T", "t"
	Frozen  bool     `json:"frozen,omitempty"`  // with its cgroup
	Syscall string   `json:"syscall,omitempty"` // the call it was in, absent on a CPU
	OnCPU   bool     `json:"on_cpu,omitempty"`
	Samples uint64   `json:"samples,omitempty"` // how often it was seen so
	Ms      uint64   `json:"ms,omitempty"`      // how long, in all
	Kernel  []string `json:"kernel,omitempty"`
	User    []string `json:"user,omitempty"`
}

// ClientCount is one client address.
type ClientCount struct {
	Addr  string `json:"addr"` // an address, or a network where they were put together
	Drops uint64 `json:"drops"`
}

// CannotSupport says that the input could not have shown some findings, or not surely, and why.
// Without findings it may concern any.
type CannotSupport struct {
	Findings []FindingID `json:"findings"`
	Why      string      `json:"why"`
	// Takes is what it takes to be let see it, where it was refused: capabilities, limits,
	// settings of the kernel.
	Takes []string `json:"takes,omitempty"`
}

// WhatIf is the window's arrivals and accepts, replayed through queues with other
// limits, workers and accept times.
type WhatIf struct {
	Assumes  []string    `json:"assumes"`  // sentences: what the model takes for granted
	Arrivals uint64      `json:"arrivals"` // handshakes replayed
	Observed uint64      `json:"observed"` // packets dropped in the window by the accept queue
	Rows     []WhatIfRow `json:"rows"`     // the first is the present setting
	// Limit is the smallest usual limit that drops nothing and lets nobody wait for long, nil
	// where none does.
	Limit *uint32 `json:"limit,omitempty"`
	Says  string  `json:"says"` // one sentence
}

// WhatIfRow is one replay: what would have been dropped with these settings.
type WhatIfRow struct {
	Limit    uint32  `json:"limit"`               // the accept queue's, in sockets
	Workers  float64 `json:"workers"`             // times the present accept capacity; 1 is the present one
	AcceptMs float64 `json:"accept_ms,omitempty"` // the longest time without an accept, in milliseconds
	Dropped  uint64  `json:"dropped"`             // packets
	Lost     uint64  `json:"lost"`                // handshakes that never got through in the window
	WaitMs   float64 `json:"wait_ms"`             // the longest time a connection would have waited in the queue, in milliseconds
	Present  bool    `json:"present,omitempty"`   // this is the setting of the window
}
