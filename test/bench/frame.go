// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// serverAddr is the bench device's own; its prefix of 16 bits holds all clients.
var serverAddr = netip.AddrFrom4([4]byte{10, 98, 0, 1})

// Clients differ in their address first, as those of a flood do.
const (
	hostsPerNet = 250
	nets        = 200
	firstPort   = 20000
)

// client is one end of a handshake, by its number.
type client int

func (c client) addr() [4]byte {
	return [4]byte{10, 98, byte(1 + int(c)/hostsPerNet%nets), byte(2 + int(c)%hostsPerNet)}
}

func (c client) port() uint16 { return uint16(firstPort + int(c)/(hostsPerNet*nets)) }

// isn is the client's initial sequence number, the same each time it tries.
func (c client) isn() uint32 { return uint32(c)*2654435761 + 1 }

// clientOf is the inverse of addr and port.
func clientOf(addr []byte, port uint16) client {
	return client(int(port-firstPort)*hostsPerNet*nets + int(addr[2]-1)*hostsPerNet + int(addr[3]-2))
}

// synOptions are a maximum segment size, SACK and a window scale.
var synOptions = []byte{2, 4, 0x05, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7}

func (c client) syn(port uint16) []byte { return c.frame(port, flagSYN, c.isn(), 0, synOptions) }

// ack finishes the handshake that the SYN-ACK with sequence number seq began.
func (c client) ack(port uint16, seq uint32) []byte {
	return c.frame(port, flagACK, c.isn()+1, seq+1, nil)
}

// rst makes the kernel forget the half-open handshake.
func (c client) rst(port uint16) []byte { return c.frame(port, flagRST, c.isn()+1, 0, nil) }

// frame builds one IPv4 packet with right checksums: the kernel verifies those
// of a TUN device without offloads.
func (c client) frame(port uint16, flags byte, seq, ack uint32, options []byte) []byte {
	src, dst := c.addr(), serverAddr.As4()
	p := make([]byte, 40+len(options))
	ip, tcp := p[:20], p[20:]
	ip[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(ip[2:], uint16(len(p)))
	ip[6] = 0x40 // don't fragment
	ip[8] = 64   // TTL
	ip[9] = unix.IPPROTO_TCP
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))

	binary.BigEndian.PutUint16(tcp[0:], c.port())
	binary.BigEndian.PutUint16(tcp[2:], port)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12] = byte(len(tcp)) / 4 << 4
	tcp[13] = flags
	binary.BigEndian.PutUint16(tcp[14:], 64240)
	copy(tcp[20:], options)
	pseudo := sum(sum(unix.IPPROTO_TCP+uint32(len(tcp)), src[:]), dst[:])
	binary.BigEndian.PutUint16(tcp[16:], ^fold(sum(pseudo, tcp)))
	return p
}

// synAck finds out whose SYN a packet of the kernel's answers.
func synAck(p []byte) (c client, seq uint32, ok bool) {
	if len(p) < 40 || p[0] != 4<<4|5 || p[9] != unix.IPPROTO_TCP || p[33] != flagSYN|flagACK {
		return 0, 0, false
	}
	return clientOf(p[16:20], binary.BigEndian.Uint16(p[22:])), binary.BigEndian.Uint32(p[24:]), true
}

// sum adds b, of even length, to an internet checksum (RFC 1071).
func sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
	}
	return acc
}

func fold(acc uint32) uint16 {
	for acc>>16 != 0 {
		acc = acc&0xffff + acc>>16
	}
	return uint16(acc)
}
