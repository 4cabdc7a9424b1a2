// SPDX-License-Identifier: Apache-2.0

package event

// CanaryOutcome is how a connection attempt ended, as the client's kernel saw it.
type CanaryOutcome string

// The outcomes.
const (
	CanaryConnected   CanaryOutcome = "connected"
	CanaryStalled     CanaryOutcome = "stalled"     // a SYN-ACK came, but nothing after it was acknowledged
	CanaryReset       CanaryOutcome = "reset"       // connected, then reset before anything was sent
	CanaryRefused     CanaryOutcome = "refused"     // the SYN was answered by an RST, or an ICMP port unreachable
	CanaryTimeout     CanaryOutcome = "timeout"     // no SYN was answered
	CanaryUnreachable CanaryOutcome = "unreachable" // no route, or an ICMP error said so
	CanaryUnresolved  CanaryOutcome = "unresolved"  // the name has no address
	CanaryFailed      CanaryOutcome = "failed"      // this machine could not send a SYN
	CanaryPending     CanaryOutcome = "pending"     // no answer yet when the run ended
)

// CanaryOutcomes lists them, best first.
func CanaryOutcomes() []CanaryOutcome {
	return []CanaryOutcome{CanaryConnected, CanaryStalled, CanaryReset, CanaryRefused,
		CanaryTimeout,
		CanaryUnreachable, CanaryUnresolved, CanaryFailed, CanaryPending}
}

// Meaning says what an outcome says about the server, in one sentence.
func (o CanaryOutcome) Meaning() string {
	switch o {
	case CanaryConnected:
		return "the handshake was completed, and the server's kernel acknowledged what followed"
	case CanaryStalled:
		return "the SYN was answered, but nothing after it: the server's accept queue was full at the last ACK, or the way back lost it"
	case CanaryReset:
		return "an RST came after the handshake: tcp_abort_on_overflow with a full accept queue, a firewall or proxy, or a server that hangs up at once"
	case CanaryRefused:
		return "SYN answered by RST: nothing listens or a firewall rejects"
	case CanaryTimeout:
		return "no answer: a full accept or SYN queue, a firewall, a dead host or a lossy network"
	case CanaryUnreachable:
		return "no way there: no route here, or a router or firewall said so by ICMP"
	case CanaryUnresolved:
		return "the name has no address, or DNS did not answer"
	case CanaryFailed:
		return "this machine could not send a SYN"
	case CanaryPending:
		return "no answer yet when the run ended"
	default:
		return ""
	}
}

// What answered a SYN that was refused, or said that there is no way.
const (
	CanaryAnswerRST  = "rst"
	CanaryAnswerICMP = "icmp"
)

// Canary is one connection attempt (type "canary"), seen from the client.
// Retransmits, RTT and what refused it are the kernel's own (TCP_INFO).
type Canary struct {
	Header
	Time    Time          `json:"time,omitzero"` // when its first SYN was sent
	Target  string        `json:"target"`        // as it was given
	Seq     uint64        `json:"seq"`           // of this target, from 1
	Server  *Endpoint     `json:"server,omitempty"`
	Client  *Endpoint     `json:"client,omitempty"`
	Outcome CanaryOutcome `json:"outcome"`
	// LatencyMs is the time until a SYN was answered; WaitedMs that until it ended
	// without an answer. One of them is nil.
	LatencyMs *float64 `json:"latency_ms,omitempty"`
	WaitedMs  *float64 `json:"waited_ms,omitempty"`
	// RTTMs is the round trip of the SYN that was answered, as the kernel measured it.
	RTTMs *float64 `json:"rtt_ms,omitempty"`
	// Retransmits counts SYNs after the first; nil where none could be sent.
	Retransmits *uint32 `json:"retransmits,omitempty"`
	Answer      string  `json:"answer,omitempty"` // CanaryAnswerRST, CanaryAnswerICMP
	Error       string  `json:"error,omitempty"`
	Note        string  `json:"note,omitempty"` // what this says, in words
}

// CanarySummary is what became of all attempts at one target (type
// "canary_summary").
type CanarySummary struct {
	Header
	Target     string                   `json:"target"`
	Server     *Endpoint                `json:"server,omitempty"` // the last one tried
	DurationMs uint64                   `json:"duration_ms"`
	Sent       uint64                   `json:"sent"`
	Skipped    uint64                   `json:"skipped,omitempty"` // not sent: too many were still unanswered
	Outcomes   map[CanaryOutcome]uint64 `json:"outcomes"`
	// Retransmitted counts attempts with a SYN that was sent again, Retransmits those SYNs.
	Retransmitted uint64         `json:"retransmitted"`
	Retransmits   uint64         `json:"retransmits"`
	Latency       *CanaryLatency `json:"latency_ms,omitempty"` // of attempts answered by a SYN-ACK; nil without any
	RTT           *CanaryLatency `json:"rtt_ms,omitempty"`
	Histogram     []CanaryBucket `json:"histogram"` // ascending; of the latencies
	Verdict       string         `json:"verdict"`
}

// CanaryLatency is a distribution in milliseconds. Percentiles are within 2 %.
type CanaryLatency struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// CanaryBucket counts the latencies from FromMs to below ToMs.
type CanaryBucket struct {
	FromMs        float64 `json:"from_ms"`
	ToMs          float64 `json:"to_ms"`
	Count         uint64  `json:"count"`
	Retransmitted uint64  `json:"retransmitted"` // how many of them
}
