// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/binary"
	"io"
	"runtime"
	"strconv"

	"github.com/synspy/synspy/internal/event"
)

// pcapngStream writes the packets themselves, each with a comment that says what
// became of it. Everything else a table would say goes to Options.Notes.
type pcapngStream struct {
	w       io.Writer
	opts    Options
	ng      *pcapngWriter // nil until something is known of the kernel, or a packet comes
	comment []byte
	packets uint64
	bare    uint64 // records without packet bytes
}

func newPcapngStream(w io.Writer, opts Options) *pcapngStream {
	if opts.Notes == nil {
		opts.Notes = io.Discard
	}
	return &pcapngStream{w: w, opts: opts}
}

// begin writes the section and its one interface.
func (s *pcapngStream) begin(kernel string) error {
	if s.ng != nil {
		return nil
	}
	s.ng = newPcapngWriter(s.w)
	return s.ng.section(runtime.GOARCH, Terminal(kernel), "synspy",
		"synspy", "packets of TCP handshakes that the kernel dropped or reset")
}

func (s *pcapngStream) Ready(r event.Ready) error {
	s.opts.Narrowed = narrowing(r.Filters)
	kernel := ""
	if r.Kernel != "" {
		kernel = "Linux " + r.Kernel
	}
	if err := s.begin(kernel); err != nil {
		return err
	}
	return s.Flush()
}

func (s *pcapngStream) Drop(d *event.Drop) error {
	if len(d.Packet) == 0 {
		s.bare++ // a packet is never made up
		return nil
	}
	if err := s.begin(""); err != nil {
		return err
	}
	s.packets++
	s.comment = s.appendComment(s.comment[:0], d)
	return s.ng.packet(d.Time.Time, d.Packet, packetLength(d.Packet), string(s.comment))
}

// Held is told by the summary.
func (s *pcapngStream) Suppressed(event.Suppressed) error { return nil }

func (s *pcapngStream) Summary(sum event.Summary) error {
	if err := s.begin(""); err != nil {
		return err
	}
	if err := s.Flush(); err != nil {
		return err
	}
	p := &printer{w: s.opts.Notes, opts: s.opts}
	p.line("synspy: " + plural(s.packets, "packet") + " written")
	if s.bare > 0 {
		p.line("synspy: " + plural(s.bare, "record") + " had no packet bytes")
	}
	_ = writeSummary(s.opts.Notes, sum, s.opts) // the packets are written, whoever reads this
	return nil
}

func (s *pcapngStream) Flush() error {
	if s.ng == nil {
		return nil
	}
	return s.ng.flush()
}

// mostComment keeps a comment far below the 64 KiB that an option may have.
const mostComment = 2048

// appendComment says in one line what a table's row says: cause, stage, action,
// listener, process.
func (s *pcapngStream) appendComment(b []byte, d *event.Drop) []byte {
	b = causeCell(b, s.opts, d)
	if !d.Stage.IsZero() {
		b = stageCell(append(b, ' '), s.opts, d)
	}
	if !d.Action.IsZero() {
		b = actionCell(append(b, ' '), s.opts, d)
	}
	if d.Attempt > 0 {
		b = strconv.AppendUint(append(b, ", try "...), uint64(d.Attempt), 10)
	}
	if l := d.Listener; l != nil {
		b = appendEndpoint(append(b, "; listener "...), l.Addr, l.Port)
		if l.AcceptQueue != nil || l.SynQueue != nil {
			b = append(queueCell(append(b, " ("...), s.opts, d), ')')
		}
		if l.NetNS != 0 {
			b = strconv.AppendUint(append(b, " netns "...), l.NetNS, 10)
		}
	}
	if len(d.Processes) > 0 {
		b = append(pidCell(append(b, "; process "...), s.opts, d), ' ')
		b = commCell(b, s.opts, d)
	}
	if d.Pod != nil || d.Container != nil || d.Cgroup != nil {
		b = placeCell(append(b, "; in "...), s.opts, d)
	}
	b, _ = elide(b, 0, mostComment, false)
	return b
}

// packetLength is the length on the wire: what the IP header says, where the
// packet was cut short.
func packetLength(packet []byte) int {
	n := 0
	switch version := packet[0] >> 4; {
	case version == 4 && len(packet) >= 4:
		n = int(binary.BigEndian.Uint16(packet[2:]))
	case version == 6 && len(packet) >= 6:
		n = 40 + int(binary.BigEndian.Uint16(packet[4:]))
	}
	return max(n, len(packet))
}
