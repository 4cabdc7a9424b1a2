// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	flagSYN = 0x02
	flagRST = 0x04
	FlagACK = 0x10
)

// serverAddr is the bench device's own; its prefix of 16 bits holds all clients.
var serverAddr = netip.AddrFrom4([4]byte{10, 98, 0, 1})

// Clients differ in their address first, as those of a flood do.
const (
	HostsPerNet = 250
	nets        = 200
	firstPort   = 20000
)

// Client is one end of a handshake, by its number.
type Client int

func (c Client) Addr() [4]byte {
	return [4]byte{10, 98, byte(1 + int(c)/HostsPerNet%nets), byte(2 + int(c)%HostsPerNet)}
}

func (c Client) port() uint16 { return uint16(firstPort + int(c)/(HostsPerNet*nets)) }

// isn is the client's initial sequence number, the same each time it tries.
func (c Client) isn() uint32 { return uint32(c)*2654435761 + 1 }

// clientOf is the inverse of addr and port.
func clientOf(addr []byte, port uint16) Client {
	return Client(int(port-firstPort)*HostsPerNet*nets + int(addr[2]-1)*HostsPerNet + int(addr[3]-2))
}

// synOptions are a maximum segment size, SACK and a window scale.
var synOptions = []byte{2, 4, 0x05, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7}

func (c Client) syn(port uint16) []byte { return c.Frame(port, flagSYN, c.isn(), 0, synOptions) }

// ACK finishes the handshake that the SYN-ACK with sequence number seq began.
func (c Client) ACK(port uint16, seq uint32) []byte {
	return c.Frame(port, FlagACK, c.isn()+1, seq+1, nil)
}

// RST makes the kernel forget the half-open handshake.
func (c Client) RST(port uint16) []byte { return c.Frame(port, flagRST, c.isn()+1, 0, nil) }

// Frame builds one IPv4 packet with right checksums: the kernel verifies those
// of a TUN device without offloads.
func (c Client) Frame(port uint16, flags byte, seq, ack uint32, options []byte) []byte {
	src, dst := c.Addr(), serverAddr.As4()
	p := make([]byte, 40+len(options))
	ip, tcp := p[:20], p[20:]
	ip[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(ip[2:], uint16(len(p)))
	ip[6] = 0x40 // don't fragment
	ip[8] = 64   // TTL
	ip[9] = unix.IPPROTO_TCP
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^Fold(Sum(0, ip)))

	binary.BigEndian.PutUint16(tcp[0:], c.port())
	binary.BigEndian.PutUint16(tcp[2:], port)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12] = byte(len(tcp)) / 4 << 4
	tcp[13] = flags
	binary.BigEndian.PutUint16(tcp[14:], 64240)
	copy(tcp[20:], options)
	pseudo := Sum(Sum(unix.IPPROTO_TCP+uint32(len(tcp)), src[:]), dst[:])
	binary.BigEndian.PutUint16(tcp[16:], ^Fold(Sum(pseudo, tcp)))
	return p
}

// synAck finds out whose SYN a packet of the kernel's answers.
func synAck(p []byte) (c Client, seq uint32, ok bool) {
	if len(p) < 40 || p[0] != 4<<4|5 || p[9] != unix.IPPROTO_TCP || p[33] != flagSYN|FlagACK {
		return 0, 0, false
	}
	return clientOf(p[16:20], binary.BigEndian.Uint16(p[22:])), binary.BigEndian.Uint32(p[24:]), true
}

// Sum adds b, of even length, to an internet checksum (RFC 1071).
func Sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
	}
	return acc
}

func Fold(acc uint32) uint16 {
	for acc>>16 != 0 {
		acc = acc&0xffff + acc>>16
	}
	return uint16(acc)
}
