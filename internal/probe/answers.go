// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"github.com/synspy/synspy/internal/kernel"
)

// rejectUse tells what modules say of rules that reject.
type rejectUse func() (kernel.RejectUse, error)

// unwatched reads how many SYNs died while nobody looked at what is sent: by rules of netfilter,
// and otherwise before a listener.
func (p *Probe) unwatched() (byRules, others uint64, err error) {
	counted := map[string]*uint64{"unwatched_rules": &byRules, "unwatched_others": &others}
	for name, to := range counted {
		if err := p.Collection.Variables[name].Get(to); err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return byRules, others, nil
}

// mayBeAnswered reports whether what is sent has to be looked at. Every packet pays for that, so
// it is where a rule rejects, as modules tell, or a SYN died that may have been answered. Which
// rules there are in a kernel without these modules is not asked again: there the first SYN that
// any rule drops is enough.
func (p *Probe) mayBeAnswered(modules rejectUse) (bool, error) {
	byRules, others, err := p.unwatched()
	if err != nil {
		return false, err
	}
	if p.facts.RejectsBuiltIn() {
		return byRules+others > 0, nil
	}
	use, err := modules()
	if err != nil {
		return false, err
	}
	if !use.Used {
		p.late.dropped = byRules // by nothing but drops
	}
	return use.Used || use.Loaded && others > 0, nil
}

// watchAnswers tells the kernel side that what is sent is looked at from now on.
func (p *Probe) watchAnswers() error {
	if err := p.Collection.Variables["answers_watched"].Set(uint32(1)); err != nil {
		return fmt.Errorf("set answers_watched: %w", err)
	}
	return nil
}

// unanswered is how many SYNs were told of as dropped and may have been rejected.
func (p *Probe) unanswered() (uint64, error) {
	byRules, others, err := p.unwatched()
	return byRules - p.late.dropped + others, err
}
