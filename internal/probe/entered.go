package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
)

// Entered returns how many connections entered a listener's accept queue since Start and
// how many accept() took from it; accepts is nil where accept() is not hooked. Unlike
// [Probe.Accepting] it looks at nothing else, and ends no marks.
func (p *Probe) Entered(socket uint64) (arrivals uint64, accepts *uint64, err error) {
	if !p.config.Accepts {
		return 0, nil, ErrNoAccepts
	}
	var raw bpf.SynspyAccepting
	err = p.collection.Maps["acceptings"].Lookup(socket, &raw)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil, fmt.Errorf("read the accept side: %w", err)
	}
	if p.plan.hooks(acceptFunction) {
		accepts = &raw.Accepts
	}
	return raw.Arrivals, accepts, nil
}
