// SPDX-License-Identifier: Apache-2.0

package listener

import "github.com/synspy/synspy/internal/probe/facts"

// Entered is what passed through a listener's accept queue since Start.
type Entered struct {
	Arrivals uint64
	// Again is how many of these arrivals had a SYN dropped before; nil where no arrival is
	// hooked. The table of tries may have forgotten that of some.
	Again   *uint64
	Accepts *uint64 // nil where accept() is not hooked
	// AnsweredAgain and AskedAgain are SYN-ACKs sent again, and SYNs that came again to their half-open handshake; nil where not seen.
	AnsweredAgain, AskedAgain *uint64
}

// Entered reads it, but for what [Probe.ArrivedAt] has read there. Unlike [Probe.Accepting] it
// looks at nothing else, and ends no marks.
func (c *Counters) Entered(socket uint64, arrived Arrivals) (Entered, error) {
	if !c.Accepts {
		return Entered{}, ErrNoAccepts
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := c.acceptsOf(socket)
	if err != nil {
		return Entered{}, err
	}
	if before, ok := c.Side.Departed[socket]; ok {
		addAccepting(&raw, &before)
	}
	e := Entered{Arrivals: arrived.Entered}
	if c.SeesEntries() {
		e.Again = &arrived.Again
	}
	if c.Plan.Attaches(facts.AcceptFunction) {
		e.Accepts = &raw.Accepts
	}
	if c.Plan.Attaches(facts.AnswerAgain) {
		e.AnsweredAgain = &raw.AnsweredAgain
	}
	if c.seesAskedAgain() {
		e.AskedAgain = &raw.AskedAgain
	}
	return e, nil
}

// SeesEntries reports whether each connection that enters an accept queue is counted: with tracepoints alone, but for those of
// SO_REUSEPORT groups.
func (c *Counters) SeesEntries() bool {
	return c.Accepts
}
