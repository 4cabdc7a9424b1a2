// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
)

// Port is the one that scenarios' servers listen on.
const Port = 8080

var (
	Any4    = netip.AddrPortFrom(netip.IPv4Unspecified(), Port)
	Any6    = netip.AddrPortFrom(netip.IPv6Unspecified(), Port)
	Server4 = netip.AddrPortFrom(ServerAddr4, Port)
	Server6 = netip.AddrPortFrom(ServerAddr6, Port)
)

// backlog of most scenarios' listen(). The queue holds one more: the test is
// sk_ack_backlog > sk_max_ack_backlog (sk_acceptq_is_full), not >=.
const (
	Backlog  = 3
	Capacity = Backlog + 1
)

var (
	Loopback4 = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port)
	Loopback6 = netip.AddrPortFrom(netip.IPv6Loopback(), Port)
)

// At is the address with another port.
func At(addr netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr(), port)
}

// Family is what a scenario that exists for IPv4 and IPv6 differs in.
type Family struct{ Listener, Server netip.AddrPort }

var (
	Family4 = Family{Any4, Server4}
	Family6 = Family{Any6, Server6}
)

// IPv6 reports whether the clients come by IPv6.
func (f Family) IPv6() bool { return f.Server.Addr().Is6() }

// HaveIPv6 wraps ErrCannotHold where the kernel has no IPv6.
func HaveIPv6() error {
	if _, err := os.Stat("/proc/sys/net/ipv6"); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it needs IPv6", ErrCannotHold)
	}
	return nil
}
