// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// HalfOpenClients lists the clients of a port whose handshakes are half-open, in a network
// namespace by its path and inode, as [ListeningSockets] does. The kernel walks its table of all
// connections for it: some milliseconds.
func HalfOpenClients(path string, inode uint64, port uint16) (clients []netip.AddrPort, err error) {
	err = InNetNS(path, inode, func() error {
		return diagDump(tcpSynRecv, port, 0, func(answer []byte) {
			if client, ok := parseHalfOpen(answer); ok {
				clients = append(clients, client)
			}
		})
	})
	return clients, err
}

// parseHalfOpen reads the other end of a struct inet_diag_msg.
func parseHalfOpen(b []byte) (netip.AddrPort, bool) {
	if len(b) < diagMessageSize || b[1] != tcpSynRecv {
		return netip.AddrPort{}, false
	}
	addr := netip.AddrFrom4([4]byte(b[24:28]))
	if b[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(b[24:40])).Unmap()
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[6:])), true
}
