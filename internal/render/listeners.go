// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// listingColumn is a column of the table of listeners. Texts beyond most are shortened.
type listingColumn struct {
	Column
	most   int
	middle bool
	cell   func([]byte, *event.Listing) []byte
}

// ListingWriter writes listeners one by one; in JSON one record for each, else a table that comes
// when it is closed. Below the table is what each warning says, and what shows it.
type ListingWriter struct {
	opts    Options
	out     *bufio.Writer
	json    jsonStream // its line and its clock alone
	columns []listingColumn
	grid    *grid
	rows    int

	warnings      uint64
	shownWarnings [][2]string // label and text of the first ones
}

// NewListingWriter begins a list of listeners. rated reports whether some have rates.
func NewListingWriter(w io.Writer, rated bool, opts Options) *ListingWriter {
	l := &ListingWriter{opts: opts, out: bufio.NewWriterSize(w, streamBuffer)}
	if opts.Format == FormatJSON {
		return l
	}
	l.columns = listingColumns(rated, opts)
	columns := make([]Column, len(l.columns))
	for i, c := range l.columns {
		columns[i] = c.Column
	}
	l.grid = newGrid(columns)
	return l
}

// Write adds a listener, of which nothing is kept.
func (l *ListingWriter) Write(listing *event.Listing) error {
	l.rows++
	if l.grid == nil {
		l.json.line = append(l.json.appendListing(l.json.line[:0], listing), '\n')
		_, err := l.out.Write(l.json.line)
		return err
	}
	g := l.grid
	for i := range l.columns {
		c := &l.columns[i]
		from := g.begin()
		g.text = escapeFrom(c.cell(g.text, listing), from)
		g.text, _ = elide(g.text, from, l.opts.most(c.most), c.middle)
		g.end()
	}
	l.warn(listing)
	return nil
}

// Close writes what is left.
func (l *ListingWriter) Close() error {
	if l.grid != nil && l.rows > 0 {
		if err := l.grid.write(l.out, l.opts); err != nil {
			return err
		}
		if err := l.writeWarnings(); err != nil {
			return err
		}
	}
	return l.out.Flush()
}

// listingColumns fit the width: 80 columns, or below 120, or any.
func listingColumns(rated bool, opts Options) []listingColumn {
	warned := func(cell string) string {
		if cell == "" || cell == unknown {
			return styleNone
		}
		return styleYellow
	}
	netns := listingColumn{Column{Title: "NETNS"}, 10, true, listingNetNS}
	address := listingColumn{Column{Title: "LISTENER"}, 25, true,
		func(b []byte, l *event.Listing) []byte {
			return appendEndpoint(b, l.Listener.Addr, l.Listener.Port)
		}}
	accept := listingColumn{Column{Title: "ACCEPT", Right: true}, 11, false, acceptCell}
	syn := listingColumn{Column{Title: "SYN", Right: true}, 9, false, synCell}
	group := listingColumn{Column{Title: "GROUP", Right: true}, 5, false, groupCell}
	drops := listingColumn{Column{Title: "~DROPS", Right: true}, 7, false, dropsCell}
	syns := listingColumn{Column{Title: "SYN/S", Right: true}, 8, false,
		func(b []byte, l *event.Listing) []byte { return rateCell(b, l, false) }}
	accepts := listingColumn{Column{Title: "ACC/S", Right: true}, 8, false,
		func(b []byte, l *event.Listing) []byte { return rateCell(b, l, true) }}
	pid := listingColumn{Column{Title: "PID", Right: true}, 7, false,
		func(b []byte, l *event.Listing) []byte {
			return pidCell(b, opts, &event.Drop{Processes: l.Processes})
		}}
	comm := listingColumn{Column{Title: "COMM"}, 14, false, ownerCell}
	where := listingColumn{Column{Title: "CONTAINER"}, 12, false,
		func(b []byte, l *event.Listing) []byte {
			return placeCell(b, opts, &event.Drop{Cgroup: l.Cgroup, Container: l.Container,
				Pod: l.Pod})
		}}
	warnings := listingColumn{Column{Title: "!", Right: true, Style: warned}, 2, false,
		func(b []byte, l *event.Listing) []byte {
			if len(l.Warnings) == 0 {
				return b
			}
			return strconv.AppendInt(b, int64(len(l.Warnings)), 10)
		}}
	if opts.Format == FormatWide {
		for _, c := range []*listingColumn{&netns, &address, &accept, &syn, &group, &drops,
			&syns, &accepts, &pid, &comm, &where} {
			c.most = unlimited
		}
		netns.cell = func(b []byte, l *event.Listing) []byte {
			return appendNumber(b, l.Listener.NetNS)
		}
		comm.Title, comm.cell = "PROCESSES", func(b []byte, l *event.Listing) []byte {
			if len(l.Processes) == 0 {
				return ownerCell(b, l)
			}
			return processesCell(b, opts, &event.Drop{Processes: l.Processes})
		}
		return []listingColumn{netns,
			{Column{Title: "NAME"}, unlimited, false,
				func(b []byte, l *event.Listing) []byte { return appendKnown(b, l.NetNS) }},
			address, accept, {Column{Title: "LIMITED BY"}, unlimited, false,
				backlogCell}, syn, group, drops, syns, accepts,
			{Column{Title: "INODE", Right: true}, unlimited, false,
				func(b []byte, l *event.Listing) []byte {
					return appendNumber(b, l.Listener.Inode)
				}},
			where, {Column{Title: "CGROUP"}, unlimited, false,
				func(b []byte, l *event.Listing) []byte {
					return cgroupCell(b, opts, &event.Drop{Cgroup: l.Cgroup})
				}},
			comm, {Column{Title: "WARNINGS", Style: warned}, unlimited, false,
				func(b []byte, l *event.Listing) []byte {
					for i, w := range l.Warnings {
						if i > 0 {
							b = append(b, ',')
						}
						b = append(b, w.ID...)
					}
					return b
				}}}
	}
	if opts.Width > 0 && opts.Width < narrowBelow {
		address.most, accept.most, syn.most, comm.most, where.most = 21, 9, 7, 12, 11
		if rated {
			return []listingColumn{address, accept, syn, syns, pid, comm, warnings}
		}
		return []listingColumn{address, accept, syn, pid, comm, where, warnings}
	}
	columns := []listingColumn{netns, address, accept, syn}
	if rated {
		where.most = 8
		return append(columns, syns, accepts, drops, pid, comm, warnings)
	}
	return append(columns, group, drops, pid, comm, where, warnings)
}

func listingNetNS(b []byte, l *event.Listing) []byte {
	if l.NetNS != "" {
		return append(b, l.NetNS...)
	}
	return appendNumber(b, l.Listener.NetNS)
}

func acceptCell(b []byte, l *event.Listing) []byte {
	if q := l.Listener.AcceptQueue; q != nil {
		return appendQueue(b, q.Len, q.Limit)
	}
	return append(b, unknown...)
}

func synCell(b []byte, l *event.Listing) []byte {
	if q := l.Listener.SynQueue; q != nil {
		return appendQueue(b, q.Len, q.Limit)
	}
	return append(b, unknown...)
}

// groupCell is the number of SO_REUSEPORT members.
func groupCell(b []byte, l *event.Listing) []byte {
	if r := l.Listener.Reuseport; r != nil {
		return strconv.AppendUint(b, uint64(r.Members), 10)
	}
	return b
}

func dropsCell(b []byte, l *event.Listing) []byte {
	if l.Drops == nil {
		return append(b, unknown...)
	}
	return strconv.AppendUint(b, l.Drops.Count, 10)
}

func rateCell(b []byte, l *event.Listing, accepts bool) []byte {
	if l.Rates == nil {
		return append(b, unknown...)
	}
	rate := l.Rates.SYNs
	if accepts {
		rate = l.Rates.Accepts
	}
	if rate == nil {
		return append(b, unknown...)
	}
	return strconv.AppendFloat(b, *rate, 'f', 1, 64)
}

// ownerCell is the first process's name, and how many more there are; "(none)" where it is
// known that no process holds it.
func ownerCell(b []byte, l *event.Listing) []byte {
	if len(l.Processes) == 0 {
		if l.OwnersKnown {
			return append(b, "(none)"...)
		}
		return append(b, unknown...)
	}
	return commCell(b, Options{}, &event.Drop{Processes: l.Processes})
}

func backlogCell(b []byte, l *event.Listing) []byte {
	if l.Backlog == nil {
		return append(b, unknown...)
	}
	switch l.Backlog.By {
	case event.BacklogListen:
		return append(b, "listen()"...)
	case event.BacklogEqual:
		return append(b,
			"listen() or somaxconn, which is equal: what was asked for is not known"...)
	case event.BacklogSomaxconn:
		return append(b, "listen(); somaxconn was lowered since"...)
	default:
		return append(b, unknown...)
	}
}

// warningLines is how many warnings are told below the table: on a node where something is
// wrong with all, they say the same.
const warningLines = 20

// warn keeps a listener's warnings, as far as they are shown.
func (l *ListingWriter) warn(listing *event.Listing) {
	for _, warning := range listing.Warnings {
		l.warnings++
		if l.warnings > warningLines {
			continue
		}
		address, _ := elide(appendEndpoint(nil, listing.Listener.Addr,
			listing.Listener.Port), 0, l.opts.most(25), true)
		label := string(address)
		if len(listing.Processes) > 0 {
			name, _ := elide(appendKnown(nil, listing.Processes[0].Comm), 0,
				l.opts.most(15), false)
			label += " (" + string(name) + " " +
				strconv.FormatUint(uint64(listing.Processes[0].PID), 10) + ")"
		}
		l.shownWarnings = append(l.shownWarnings,
			[2]string{l.opts.paint(styleYellow, label) + ": ",
				Terminal(warning.Text) + " [" +
					Terminal(strings.Join(warning.Evidence, "; ")) + "]"})
	}
}

func (l *ListingWriter) writeWarnings() error {
	p := &printer{w: l.out, opts: l.opts}
	for i, shown := range l.shownWarnings {
		if i == 0 {
			p.line("")
		}
		p.text(shown[0], shown[1])
	}
	if l.warnings > warningLines {
		p.line("and " + l.opts.plural(l.warnings-warningLines, "warning") +
			" more; -o json has all")
	}
	return p.err
}
