// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// TCP option kinds.
const (
	optionEnd         = 0
	optionNOP         = 1
	optionMSS         = 2
	optionWindowScale = 3
	optionSACK        = 4
	optionTimestamps  = 8
)

// echoClient sends the barrier's echo requests; no client has its address.
var echoClient = netip.MustParseAddr("10.99.0.254")

// segment is one TCP packet with its addresses.
type segment struct {
	src, dst  netip.AddrPort
	seq, ack  uint32
	flags     uint8
	window    uint16
	options   []byte // TCP options, a multiple of four bytes
	ipOptions []byte // IPv4 options, a multiple of four bytes
	payload   []byte
}

// marshal builds the IP packet, with all checksums right: a TUN device without
// offloads makes the kernel verify them (tcp_v4_rcv: skb_checksum_init).
func (s segment) marshal() []byte {
	tcp := make([]byte, 20, 20+len(s.options)+len(s.payload))
	binary.BigEndian.PutUint16(tcp[0:], s.src.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12] = byte(20+len(s.options)) / 4 << 4
	tcp[13] = s.flags
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	tcp = append(append(tcp, s.options...), s.payload...)
	binary.BigEndian.PutUint16(tcp[16:], ^fold(sum(pseudoHeader(s.src.Addr(), s.dst.Addr(), unix.IPPROTO_TCP, len(tcp)), tcp)))

	if s.src.Addr().Is4() {
		return append(header4(s.src.Addr(), s.dst.Addr(), unix.IPPROTO_TCP, s.ipOptions, len(tcp)), tcp...)
	}
	return append(header6(s.src.Addr(), s.dst.Addr(), unix.IPPROTO_TCP, len(tcp)), tcp...)
}

func header4(src, dst netip.Addr, protocol byte, options []byte, payload int) []byte {
	h := make([]byte, 20, 20+len(options)+payload)
	h[0] = 4<<4 | byte(20+len(options))/4
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+payload))
	h[6] = 0x40 // don't fragment
	h[8] = 64   // TTL
	h[9] = protocol
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	h = append(h, options...)
	binary.BigEndian.PutUint16(h[10:], ^fold(sum(0, h)))
	return h
}

func header6(src, dst netip.Addr, next byte, payload int) []byte {
	h := make([]byte, 40, 40+payload)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6] = next
	h[7] = 64 // hop limit
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return h
}

// pseudoHeader sums what TCP's checksum covers besides the segment itself.
func pseudoHeader(src, dst netip.Addr, protocol byte, length int) uint32 {
	return sum(sum(uint32(protocol)+uint32(length), src.AsSlice()), dst.AsSlice())
}

// sum adds b to an internet checksum (RFC 1071); b must start at an even offset.
func sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		acc += uint32(b[0]) << 8
	}
	return acc
}

func fold(acc uint32) uint16 {
	for acc>>16 != 0 {
		acc = acc&0xffff + acc>>16
	}
	return uint16(acc)
}

var errNotTCP = errors.New("not a TCP packet")

// parseSegment reads an answer of the kernel's. It refuses wrong checksums: the
// kernel fills them in for a device without offloads.
func parseSegment(b []byte) (segment, error) {
	var s segment
	var src, dst netip.Addr
	var tcp []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
		if b[9] != unix.IPPROTO_TCP {
			return s, errNotTCP
		}
		if header < 20 || total < header || len(b) < total {
			return s, fmt.Errorf("IPv4 lengths %d and %d of %d bytes", header, total, len(b))
		}
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		s.ipOptions, tcp = append(s.ipOptions, b[20:header]...), b[header:total]
		if fold(sum(0, b[:header])) != 0xffff {
			return s, errors.New("wrong IPv4 header checksum")
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		if b[6] != unix.IPPROTO_TCP {
			return s, errNotTCP
		}
		total := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if len(b) < total {
			return s, fmt.Errorf("IPv6 length %d of %d bytes", total, len(b))
		}
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		tcp = b[40:total]
	default:
		return s, errNotTCP
	}
	if len(tcp) < 20 {
		return s, fmt.Errorf("TCP header of %d bytes", len(tcp))
	}
	offset := int(tcp[12]>>4) * 4
	if offset < 20 || offset > len(tcp) {
		return s, fmt.Errorf("TCP data offset %d of %d bytes", offset, len(tcp))
	}
	if fold(sum(pseudoHeader(src, dst, unix.IPPROTO_TCP, len(tcp)), tcp)) != 0xffff {
		return s, errors.New("wrong TCP checksum")
	}
	s.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp[0:]))
	s.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:]))
	s.seq, s.ack = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:])
	s.flags, s.window = tcp[13], binary.BigEndian.Uint16(tcp[14:])
	s.options = append(s.options, tcp[20:offset]...)
	s.payload = append(s.payload, tcp[offset:]...)
	return s, nil
}

// option returns the value of a TCP option.
func (s segment) option(kind byte) ([]byte, bool) {
	for b := s.options; len(b) > 0 && b[0] != optionEnd; {
		if b[0] == optionNOP {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return nil, false
		}
		if b[0] == kind {
			return b[2:b[1]], true
		}
		b = b[b[1]:]
	}
	return nil, false
}

// echoRequest builds the barrier's ICMP echo request.
func echoRequest(src, dst netip.Addr, id uint16) []byte {
	icmp := make([]byte, 8)
	icmp[0] = 8 // echo request
	binary.BigEndian.PutUint16(icmp[4:], id)
	binary.BigEndian.PutUint16(icmp[2:], ^fold(sum(0, icmp)))
	return append(header4(src, dst, unix.IPPROTO_ICMP, nil, len(icmp)), icmp...)
}

// parseEchoReply returns the identifier of an ICMP echo reply.
func parseEchoReply(b []byte) (uint16, bool) {
	if len(b) < 28 || b[0] != 4<<4|5 || b[9] != unix.IPPROTO_ICMP || b[20] != 0 {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[24:]), true
}
