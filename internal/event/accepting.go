// SPDX-License-Identifier: Apache-2.0

package event

// Accepting is a listener's accept side: what entered its accept queue, and what
// was accepted from it. What is unknown is absent.
type Accepting struct {
	Arrivals uint64  `json:"arrivals"`          // connections that entered the accept queue
	Accepts  *uint64 `json:"accepts,omitempty"` // connections that accept() took from it
	// Proof is how Accepts is known: by accept's return, or inferred from the state of
	// the queue.
	SynAcksAgain *uint64      `json:"syn_acks_again,omitempty"` // SYN-ACKs that were sent again
	SynsAgain    *uint64      `json:"syns_again,omitempty"`     // SYNs that came again to a handshake that had been answered
	Proof        Proof        `json:"proof,omitzero"`
	Waits        []WaitBucket `json:"waits,omitempty"`            // by time in the accept queue; of accepts whose arrival was seen
	WaitedUs     *uint64      `json:"waited_us,omitempty"`        // by those, in all
	LongestGapMs *uint64      `json:"longest_gap_ms,omitempty"`   // between two accepts
	LastAcceptMs *uint64      `json:"last_accept_ms,omitempty"`   // before the reading
	AcceptMax    *uint32      `json:"accept_queue_max,omitempty"` // read each time that a connection entered
	SynMax       *uint32      `json:"syn_queue_max,omitempty"`    // likewise: with the one that entered
}

// WaitBucket is how many connections waited less than BelowUs microseconds, but no less than
// the bucket before. Without it, and last, there is no upper bound.
type WaitBucket struct {
	BelowUs uint64 `json:"below_us,omitempty"`
	Count   uint64 `json:"count"`
}

// WaitBuckets makes buckets of a histogram by binary logarithm: its element n counts
// what is under 2^n microseconds, the last one whatever is longer. Empty ones are
// left out.
func WaitBuckets(histogram []uint64) []WaitBucket {
	var buckets []WaitBucket
	for n, count := range histogram {
		if count == 0 {
			continue
		}
		bucket := WaitBucket{Count: count}
		if n < len(histogram)-1 {
			bucket.BelowUs = 1 << n
		}
		buckets = append(buckets, bucket)
	}
	return buckets
}
