// SPDX-License-Identifier: Apache-2.0

package world

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
	inbox    chan Segment
	sent     uint32 // payload bytes sent
	SYNAck   *Segment
	synAcks  int
	wasReset bool
	Others   []Segment // neither SYN-ACK nor RST
}

// Client makes a client with an address and port of its own for the server's
// address family, and an ISN that no other client of this World has.
func (w *World) Client(server netip.AddrPort) *Client {
	local, isn := w.NextClient(server)
	return w.ClientFrom(local, server, isn)
}

// NextClient returns an address that no client had yet, and a sequence number for it.
func (w *World) NextClient(server netip.AddrPort) (local netip.AddrPort, isn uint32) {
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
	c := &Client{Local: local, Remote: server, ISN: isn, w: w, inbox: make(chan Segment, 64)}
	w.mu.Lock()
	w.inboxes[Flow{Client: local, Server: server}] = c.inbox
	w.Players = append(w.Players, c)
	w.mu.Unlock()
	return c
}

// Send sends a segment as it is.
func (c *Client) Send(s Segment) error { return c.w.InjectFrame(c.Frame(s)) }

// Frame builds a packet of this client's.
func (c *Client) Frame(s Segment) []byte {
	s.Src, s.Dst, s.window, s.ipOptions = c.Local, c.Remote, 64240, c.IPOptions
	return s.Marshal()
}

// SYNOptions are those that every SYN has.
func SYNOptions() []byte {
	return []byte{optionMSS, 4, 0x05, 0xb4, optionSACK, 2, OptionNOP, OptionNOP, OptionNOP,
		optionWindowScale, 3, 7}
}

// SYN sends the SYN; sent again, it is a retransmission (same ISN). It always
// offers a maximum segment size, SACK and a window scale.
func (c *Client) SYN() error { return c.SendSYN(c.Frame(c.SYNSegment())) }

// SYNSegment is the SYN itself.
func (c *Client) SYNSegment() Segment {
	options := SYNOptions()
	if c.Timestamps {
		options = append(options, OptionNOP, OptionNOP, OptionTimestamps, 10)
		options = binary.BigEndian.AppendUint32(options, c.ISN+c.TimestampOffset)
		options = binary.BigEndian.AppendUint32(options, 0)
	}
	return Segment{Seq: c.ISN, Flags: FlagSYN, Options: options}
}

// SendSYN sends a packet that was made from the SYN, damaged perhaps.
func (c *Client) SendSYN(frame []byte) error {
	if err := c.w.InjectFrame(frame); err != nil {
		return err
	}
	c.w.mu.Lock()
	c.w.syns++
	c.w.mu.Unlock()
	return nil
}

// ACK finishes the handshake. It needs the SYN-ACK.
func (c *Client) ACK() error { return c.established(FlagACK, nil) }

// Data sends payload behind what was sent before.
func (c *Client) Data(payload []byte) error {
	if err := c.established(FlagACK|FlagPSH, payload); err != nil {
		return err
	}
	c.sent += uint32(len(payload))
	return nil
}

// RST resets the connection with the exact sequence number expected.
func (c *Client) RST() error { return c.established(FlagRST|FlagACK, nil) }

func (c *Client) established(flags uint8, payload []byte) error {
	s, err := c.Next(flags, payload)
	if err != nil {
		return err
	}
	return c.Send(s)
}

// Next is the packet that fits the connection now: the ACK, or what a scenario
// spoils before it sends it.
func (c *Client) Next(flags uint8, payload []byte) (Segment, error) {
	if !c.Answered() {
		return Segment{}, fmt.Errorf("client %s: no SYN-ACK to acknowledge: %w", c.Local,
			ErrNoAnswer)
	}
	s := Segment{Seq: c.ISN + 1 + c.sent, ACK: c.SYNAck.Seq + 1, Flags: flags, Payload: payload}
	if ts, ok := c.SYNAck.Option(OptionTimestamps); ok && len(ts) == 8 {
		s.Options = []byte{OptionNOP, OptionNOP, OptionTimestamps, 10}
		s.Options = binary.BigEndian.AppendUint32(s.Options, c.ISN+1+c.TimestampOffset)
		s.Options = append(s.Options, ts[:4]...)
	}
	return s, nil
}

// note takes in one answer.
func (c *Client) note(s Segment) {
	switch {
	case s.Flags&FlagRST != 0:
		c.wasReset = true
	case s.Flags&(FlagSYN|FlagACK) == FlagSYN|FlagACK && s.ACK == c.ISN+1:
		c.synAcks++
		c.SYNAck = &s
	default:
		c.Others = append(c.Others, s)
	}
}

// Drain takes in the answers that are there.
func (c *Client) Drain() {
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
func (c *Client) Answered() bool { c.Drain(); return c.SYNAck != nil }

// WasReset reports whether an RST has arrived.
func (c *Client) WasReset() bool { c.Drain(); return c.wasReset }

// SYNACKs returns how many SYN-ACKs have arrived, retransmitted ones included.
func (c *Client) SYNACKs() int { c.Drain(); return c.synAcks }

// Cookie reports whether the SYN-ACK is a SYN cookie, from the wire alone: for
// a SYN without timestamps a cookie can remember no options, so
// tcp_conn_request clears them (tcp_clear_options) and the window scale that
// this client always offers is missing from the answer.
func (c *Client) Cookie() bool {
	if !c.Answered() || c.Timestamps {
		return false
	}
	_, scaled := c.SYNAck.Option(optionWindowScale)
	return !scaled
}

// WaitSYNACK waits for the SYN-ACK.
func (c *Client) WaitSYNACK(ctx context.Context) error {
	return c.Wait(ctx, "SYN-ACK", c.Answered)
}

// Wait takes in answers until there is the one that must come.
func (c *Client) Wait(ctx context.Context, what string, arrived func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for !arrived() {
		select {
		case s := <-c.inbox:
			c.note(s)
		case <-ctx.Done():
			return fmt.Errorf("client %s waits for %s: %w", c.Local, what,
				errors.Join(ErrNoAnswer, ctx.Err()))
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

// Clients makes n clients that have not sent anything.
func (w *World) Clients(server netip.AddrPort, n int) []*Client {
	list := make([]*Client, n)
	for i := range list {
		list[i] = w.Client(server)
	}
	return list
}

// TimeWait plays a connection that the server closes first, so that the server
// keeps it in TIME_WAIT.
func (w *World) TimeWait(ctx context.Context, server netip.AddrPort, timestamps bool) (*Client,
	error) {
	c := w.Client(server)
	c.Timestamps = timestamps
	if err := c.Handshake(ctx); err != nil {
		return nil, err
	}
	var fin Segment
	if err := c.Wait(ctx, "FIN", func() bool {
		for _, s := range c.Others {
			if s.Flags&FlagFIN != 0 {
				fin = s
				return true
			}
		}
		return false
	}); err != nil {
		return nil, err
	}
	// ACK of the FIN and FIN of this side in one: FIN_WAIT1 to TIME_WAIT.
	last, err := c.Next(FlagFIN|FlagACK, nil)
	if err != nil {
		return nil, err
	}
	last.ACK = fin.Seq + 1
	if err := c.Send(last); err != nil {
		return nil, err
	}
	return c, w.Barrier(ctx)
}
