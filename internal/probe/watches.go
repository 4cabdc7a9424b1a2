// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/synspy/synspy/internal/probe/watch"
	"net/netip"
)

// OpenShortages loads what sees accept() fail, in the way in which the probe sees connections
// accepted, and attaches nothing. The error is of each way that was tried.
func (p *Probe) OpenShortages() (*watch.Shortages, error) {
	return watch.OpenShortages(p.facts, &p.plan)
}

// LoadStrays is LoadStrays of what the probe knows of this kernel.
func (p *Probe) LoadStrays(netns uint64, addresses []netip.Addr) (*watch.Strays, error) {
	return watch.LoadStrays(p.facts, p.Names, netns, addresses)
}
