// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// answerTimeout bounds the wait for an answer that must come. The kernel
// answers while the packet is written, so it only runs out on a failure.
const answerTimeout = 5 * time.Second

// ErrNoAnswer means that the kernel did not answer a packet.
var ErrNoAnswer = errors.New("no answer")

// Client plays one TCP client. It sends exactly the packets it is told to and
// answers nothing by itself. A Client is used by one goroutine at a time.
type Client struct {
	Local, Remote netip.AddrPort
	ISN           uint32
	// Timestamps adds the option to the SYN. It makes Cookie useless: a cookie
	// then keeps the window scale in the timestamp's low bits and the SYN-ACK
	// looks like any other.
	Timestamps bool
	// TimestampOffset is added to the timestamps, which begin at the ISN.
	TimestampOffset uint32
	// IPOptions are IPv4 header options, a multiple of four bytes.
	IPOptions []byte

	w        *World
	inbox    chan segment
	sent     uint32 // payload bytes sent
	synAck   *segment
	synAcks  int
	wasReset bool
	others   []segment // neither SYN-ACK nor RST
}

// Client makes a client with an address and port of its own for the server's
// address family, and an ISN that no other client of this World has.
func (w *World) Client(server netip.AddrPort) *Client {
	local, isn := w.nextClient(server)
	return w.ClientFrom(local, server, isn)
}

func (w *World) nextClient(server netip.AddrPort) (local netip.AddrPort, isn uint32) {
	w.mu.Lock()
	id := w.nextID
	w.nextID++
	w.mu.Unlock()
	// 200 hosts (2 to 201), then other ports of the same hosts.
	host, port := byte(2+id%200), uint16(20000+id/200*7+id%7)
	addr := netip.AddrFrom4([4]byte{10, 99, 0, host})
	if server.Addr().Is6() {
		a := ServerAddr6.As16()
		a[15] = host
		addr = netip.AddrFrom16(a)
	}
	return netip.AddrPortFrom(addr, port), 0x10000000 + id*0x10001
}

// ClientFrom makes a client with the given address and ISN. Outside the TUN
// device's prefix it gets no answer, unless AddRoute makes it a route.
func (w *World) ClientFrom(local, server netip.AddrPort, isn uint32) *Client {
	c := &Client{Local: local, Remote: server, ISN: isn, w: w, inbox: make(chan segment, 64)}
	w.mu.Lock()
	w.inboxes[flow{client: local, server: server}] = c.inbox
	w.players = append(w.players, c)
	w.mu.Unlock()
	return c
}

func (c *Client) send(s segment) error { return c.w.inject(c.frame(s)) }

// frame builds a packet of this client's.
func (c *Client) frame(s segment) []byte {
	s.src, s.dst, s.window, s.ipOptions = c.Local, c.Remote, 64240, c.IPOptions
	return s.marshal()
}

func synOptions() []byte {
	return []byte{optionMSS, 4, 0x05, 0xb4, optionSACK, 2, optionNOP, optionNOP, optionNOP, optionWindowScale, 3, 7}
}

// SYN sends the SYN; sent again, it is a retransmission (same ISN). It always
// offers a maximum segment size, SACK and a window scale.
func (c *Client) SYN() error { return c.sendSYN(c.frame(c.syn())) }

// syn is the SYN itself.
func (c *Client) syn() segment {
	options := synOptions()
	if c.Timestamps {
		options = append(options, optionNOP, optionNOP, optionTimestamps, 10)
		options = binary.BigEndian.AppendUint32(options, c.ISN+c.TimestampOffset)
		options = binary.BigEndian.AppendUint32(options, 0)
	}
	return segment{seq: c.ISN, flags: flagSYN, options: options}
}

// sendSYN sends a packet that was made from the SYN, damaged perhaps.
func (c *Client) sendSYN(frame []byte) error {
	if err := c.w.inject(frame); err != nil {
		return err
	}
	c.w.mu.Lock()
	c.w.syns++
	c.w.mu.Unlock()
	return nil
}

// ACK finishes the handshake. It needs the SYN-ACK.
func (c *Client) ACK() error { return c.established(flagACK, nil) }

// Data sends payload behind what was sent before.
func (c *Client) Data(payload []byte) error {
	if err := c.established(flagACK|flagPSH, payload); err != nil {
		return err
	}
	c.sent += uint32(len(payload))
	return nil
}

// RST resets the connection with the exact sequence number expected.
func (c *Client) RST() error { return c.established(flagRST|flagACK, nil) }

func (c *Client) established(flags uint8, payload []byte) error {
	s, err := c.next(flags, payload)
	if err != nil {
		return err
	}
	return c.send(s)
}

// next is the packet that fits the connection now: the ACK, or what a scenario
// spoils before it sends it.
func (c *Client) next(flags uint8, payload []byte) (segment, error) {
	if !c.Answered() {
		return segment{}, fmt.Errorf("client %s: no SYN-ACK to acknowledge: %w", c.Local, ErrNoAnswer)
	}
	s := segment{seq: c.ISN + 1 + c.sent, ack: c.synAck.seq + 1, flags: flags, payload: payload}
	if ts, ok := c.synAck.option(optionTimestamps); ok && len(ts) == 8 {
		s.options = []byte{optionNOP, optionNOP, optionTimestamps, 10}
		s.options = binary.BigEndian.AppendUint32(s.options, c.ISN+1+c.TimestampOffset)
		s.options = append(s.options, ts[:4]...)
	}
	return s, nil
}

// note takes in one answer.
func (c *Client) note(s segment) {
	switch {
	case s.flags&flagRST != 0:
		c.wasReset = true
	case s.flags&(flagSYN|flagACK) == flagSYN|flagACK && s.ack == c.ISN+1:
		c.synAcks++
		c.synAck = &s
	default:
		c.others = append(c.others, s)
	}
}

// drain takes in the answers that are there.
func (c *Client) drain() {
	for {
		select {
		case s := <-c.inbox:
			c.note(s)
		default:
			return
		}
	}
}

// Answered reports whether a SYN-ACK has arrived. After a Barrier, false means
// that the SYN was dropped.
func (c *Client) Answered() bool { c.drain(); return c.synAck != nil }

// WasReset reports whether an RST has arrived.
func (c *Client) WasReset() bool { c.drain(); return c.wasReset }

// SYNACKs returns how many SYN-ACKs have arrived, retransmitted ones included.
func (c *Client) SYNACKs() int { c.drain(); return c.synAcks }

// Cookie reports whether the SYN-ACK is a SYN cookie, from the wire alone: for
// a SYN without timestamps a cookie can remember no options, so
// tcp_conn_request clears them (tcp_clear_options) and the window scale that
// this client always offers is missing from the answer.
func (c *Client) Cookie() bool {
	if !c.Answered() || c.Timestamps {
		return false
	}
	_, scaled := c.synAck.option(optionWindowScale)
	return !scaled
}

// WaitSYNACK waits for the SYN-ACK.
func (c *Client) WaitSYNACK(ctx context.Context) error {
	return c.wait(ctx, "SYN-ACK", c.Answered)
}

// wait takes in answers until there is the one that must come.
func (c *Client) wait(ctx context.Context, what string, arrived func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for !arrived() {
		select {
		case s := <-c.inbox:
			c.note(s)
		case <-ctx.Done():
			return fmt.Errorf("client %s waits for %s: %w", c.Local, what, errors.Join(ErrNoAnswer, ctx.Err()))
		}
	}
	return nil
}

// Handshake sends the SYN, waits for the SYN-ACK and acknowledges it.
func (c *Client) Handshake(ctx context.Context) error {
	if err := c.SYN(); err != nil {
		return err
	}
	if err := c.WaitSYNACK(ctx); err != nil {
		return err
	}
	return c.ACK()
}

// Burst makes n clients, lets each send its SYN, and returns when their
// answers, where there are any, have arrived.
func (w *World) Burst(ctx context.Context, server netip.AddrPort, n int) ([]*Client, error) {
	clients := make([]*Client, n)
	for i := range clients {
		clients[i] = w.Client(server)
		if err := clients[i].SYN(); err != nil {
			return nil, err
		}
	}
	return clients, w.Barrier(ctx)
}

// Handshakes completes n handshakes one after the other, so that the SYN queue
// is empty before and after.
func (w *World) Handshakes(ctx context.Context, server netip.AddrPort, n int) error {
	for range n {
		if err := w.Client(server).Handshake(ctx); err != nil {
			return err
		}
	}
	return nil
}
