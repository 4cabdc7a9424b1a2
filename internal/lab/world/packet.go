// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	FlagFIN = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
)

// TCP option kinds.
const (
	optionEnd         = 0
	OptionNOP         = 1
	optionMSS         = 2
	optionWindowScale = 3
	optionSACK        = 4
	OptionTimestamps  = 8
)

// echoClient sends the barrier's echo requests; no client has its address.
var echoClient = netip.MustParseAddr("10.99.0.254")

// Segment is one TCP packet with its addresses.
type Segment struct {
	Src, Dst  netip.AddrPort
	Seq, ACK  uint32
	Flags     uint8
	window    uint16
	Options   []byte // TCP options, a multiple of four bytes
	ipOptions []byte // IPv4 options, a multiple of four bytes
	Payload   []byte
}

// Marshal builds the IP packet, with all checksums right: a TUN device without
// offloads makes the kernel verify them (tcp_v4_rcv: skb_checksum_init).
func (s Segment) Marshal() []byte {
	tcp := make([]byte, 20, 20+len(s.Options)+len(s.Payload))
	binary.BigEndian.PutUint16(tcp[0:], s.Src.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.Dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.Seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ACK)
	tcp[12] = byte(20+len(s.Options)) / 4 << 4
	tcp[13] = s.Flags
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	tcp = append(append(tcp, s.Options...), s.Payload...)
	binary.BigEndian.PutUint16(tcp[16:],
		^Fold(Sum(PseudoHeader(s.Src.Addr(), s.Dst.Addr(), unix.IPPROTO_TCP, len(tcp)),
			tcp)))

	if s.Src.Addr().Is4() {
		return append(Header4(s.Src.Addr(), s.Dst.Addr(), unix.IPPROTO_TCP, s.ipOptions,
			len(tcp)), tcp...)
	}
	return append(Header6(s.Src.Addr(), s.Dst.Addr(), unix.IPPROTO_TCP, len(tcp)), tcp...)
}

// Header4 is an IPv4 header with its checksum, for a payload of so many bytes.
func Header4(src, dst netip.Addr, protocol byte, options []byte, payload int) []byte {
	h := make([]byte, 20, 20+len(options)+payload)
	h[0] = 4<<4 | byte(20+len(options))/4
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+payload))
	h[6] = 0x40 // don't fragment
	h[8] = 64   // TTL
	h[9] = protocol
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	h = append(h, options...)
	binary.BigEndian.PutUint16(h[10:], ^Fold(Sum(0, h)))
	return h
}

// Header6 is the same of IPv6.
func Header6(src, dst netip.Addr, next byte, payload int) []byte {
	h := make([]byte, 40, 40+payload)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6] = next
	h[7] = 64 // hop limit
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return h
}

// PseudoHeader sums what TCP's checksum covers besides the segment itself.
func PseudoHeader(src, dst netip.Addr, protocol byte, length int) uint32 {
	return Sum(Sum(uint32(protocol)+uint32(length), src.AsSlice()), dst.AsSlice())
}

// Sum adds b to an internet checksum (RFC 1071); b must start at an even offset.
func Sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		acc += uint32(b[0]) << 8
	}
	return acc
}

// Fold ends an Internet checksum.
func Fold(acc uint32) uint16 {
	for acc>>16 != 0 {
		acc = acc&0xffff + acc>>16
	}
	return uint16(acc)
}

var errNotTCP = errors.New("not a TCP packet")

// ParseSegment reads an answer of the kernel's. It refuses wrong checksums: the
// kernel fills them in for a device without offloads.
func ParseSegment(b []byte) (Segment, error) {
	var s Segment
	var src, dst netip.Addr
	var tcp []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
		if b[9] != unix.IPPROTO_TCP {
			return s, errNotTCP
		}
		if header < 20 || total < header || len(b) < total {
			return s, fmt.Errorf("IPv4 lengths %d and %d of %d bytes", header, total,
				len(b))
		}
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		s.ipOptions, tcp = append(s.ipOptions, b[20:header]...), b[header:total]
		if Fold(Sum(0, b[:header])) != 0xffff {
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
	if Fold(Sum(PseudoHeader(src, dst, unix.IPPROTO_TCP, len(tcp)), tcp)) != 0xffff {
		return s, errors.New("wrong TCP checksum")
	}
	s.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp[0:]))
	s.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:]))
	s.Seq, s.ACK = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:])
	s.Flags, s.window = tcp[13], binary.BigEndian.Uint16(tcp[14:])
	s.Options = append(s.Options, tcp[20:offset]...)
	s.Payload = append(s.Payload, tcp[offset:]...)
	return s, nil
}

// Option returns the value of a TCP option.
func (s Segment) Option(kind byte) ([]byte, bool) {
	for b := s.Options; len(b) > 0 && b[0] != optionEnd; {
		if b[0] == OptionNOP {
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
	binary.BigEndian.PutUint16(icmp[2:], ^Fold(Sum(0, icmp)))
	return append(Header4(src, dst, unix.IPPROTO_ICMP, nil, len(icmp)), icmp...)
}

// parseEchoReply returns the identifier of an ICMP echo reply.
func parseEchoReply(b []byte) (uint16, bool) {
	if len(b) < 28 || b[0] != 4<<4|5 || b[9] != unix.IPPROTO_ICMP || b[20] != 0 {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[24:]), true
}
