package render

import (
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// listingColumn is a column of the table of listeners. Texts beyond most are shortened.
type listingColumn struct {
	Column
	most   int
	middle bool
	cell   func(*event.Listing) string
}

// Listings writes the listeners; in JSON one record for each. Below the table is what
// each warning says, and what shows it.
func Listings(w io.Writer, list []event.Listing, opts Options) error {
	if opts.Format == FormatJSON {
		for i := range list {
			if err := WriteJSON(w, list[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	columns := listingColumns(list, opts)
	plain := make([]Column, len(columns))
	for i, c := range columns {
		plain[i] = c.Column
	}
	rows := make([][]string, 0, len(list))
	for i := range list {
		row := make([]string, len(columns))
		for j, c := range columns {
			cell, _ := elide([]byte(Terminal(c.cell(&list[i]))), 0, opts.most(c.most), c.middle)
			row[j] = string(cell)
		}
		rows = append(rows, row)
	}
	if err := Table(w, plain, rows, opts); err != nil {
		return err
	}
	return listingWarnings(w, list, opts)
}

// listingColumns fit the width: 80 columns, or below 120, or any.
func listingColumns(list []event.Listing, opts Options) []listingColumn {
	warned := func(cell string) string {
		if cell == "" || cell == unknown {
			return styleNone
		}
		return styleYellow
	}
	netns := listingColumn{Column{Title: "NETNS"}, 10, true, listingNetNS}
	address := listingColumn{Column{Title: "LISTENER"}, 25, true, func(l *event.Listing) string {
		return string(appendEndpoint(nil, l.Listener.Addr, l.Listener.Port))
	}}
	accept := listingColumn{Column{Title: "ACCEPT", Right: true}, 11, false, acceptCell}
	syn := listingColumn{Column{Title: "SYN", Right: true}, 9, false, synCell}
	group := listingColumn{Column{Title: "GROUP", Right: true}, 5, false, groupCell}
	drops := listingColumn{Column{Title: "~DROPS", Right: true}, 7, false, dropsCell}
	syns := listingColumn{Column{Title: "SYN/S", Right: true}, 8, false, func(l *event.Listing) string { return rateCell(l, false) }}
	accepts := listingColumn{Column{Title: "ACC/S", Right: true}, 8, false, func(l *event.Listing) string { return rateCell(l, true) }}
	pid := listingColumn{Column{Title: "PID", Right: true}, 7, false, func(l *event.Listing) string {
		return string(pidCell(nil, opts, &event.Drop{Processes: l.Processes}))
	}}
	comm := listingColumn{Column{Title: "COMM"}, 14, false, func(l *event.Listing) string { return ownerCell(l) }}
	where := listingColumn{Column{Title: "CONTAINER"}, 12, false, func(l *event.Listing) string {
		return string(placeCell(nil, opts, &event.Drop{Cgroup: l.Cgroup, Container: l.Container, Pod: l.Pod}))
	}}
	warnings := listingColumn{Column{Title: "!", Right: true, Style: warned}, 2, false, func(l *event.Listing) string {
		if len(l.Warnings) == 0 {
			return ""
		}
		return strconv.Itoa(len(l.Warnings))
	}}
	if opts.Format == FormatWide {
		for _, c := range []*listingColumn{&netns, &address, &accept, &syn, &group, &drops, &syns, &accepts, &pid, &comm, &where} {
			c.most = unlimited
		}
		netns.cell = func(l *event.Listing) string { return string(appendNumber(nil, l.Listener.NetNS)) }
		comm.Title, comm.cell = "PROCESSES", func(l *event.Listing) string {
			if len(l.Processes) == 0 {
				return ownerCell(l)
			}
			return string(processesCell(nil, opts, &event.Drop{Processes: l.Processes}))
		}
		return []listingColumn{netns, {Column{Title: "NAME"}, unlimited, false, func(l *event.Listing) string { return orUnknown(l.NetNS) }},
			address, accept, {Column{Title: "LIMITED BY"}, unlimited, false, backlogCell}, syn, group, drops, syns, accepts,
			{Column{Title: "INODE", Right: true}, unlimited, false, func(l *event.Listing) string {
				return string(appendNumber(nil, l.Listener.Inode))
			}},
			where, {Column{Title: "CGROUP"}, unlimited, false, func(l *event.Listing) string {
				return string(cgroupCell(nil, opts, &event.Drop{Cgroup: l.Cgroup}))
			}},
			comm, {Column{Title: "WARNINGS", Style: warned}, unlimited, false, func(l *event.Listing) string {
				ids := make([]string, len(l.Warnings))
				for i, w := range l.Warnings {
					ids[i] = w.ID
				}
				return strings.Join(ids, ",")
			}}}
	}
	rated := slices.ContainsFunc(list, func(l event.Listing) bool { return l.Rates != nil })
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

func listingNetNS(l *event.Listing) string {
	if l.NetNS != "" {
		return l.NetNS
	}
	return string(appendNumber(nil, l.Listener.NetNS))
}

func acceptCell(l *event.Listing) string {
	if q := l.Listener.AcceptQueue; q != nil {
		return string(appendQueue(nil, q.Len, q.Limit))
	}
	return unknown
}

func synCell(l *event.Listing) string {
	if q := l.Listener.SynQueue; q != nil {
		return string(appendQueue(nil, q.Len, q.Limit))
	}
	return unknown
}

// groupCell is the number of SO_REUSEPORT members.
func groupCell(l *event.Listing) string {
	if r := l.Listener.Reuseport; r != nil {
		return strconv.FormatUint(uint64(r.Members), 10)
	}
	return ""
}

func dropsCell(l *event.Listing) string {
	if l.Drops == nil {
		return unknown
	}
	return strconv.FormatUint(l.Drops.Count, 10)
}

func rateCell(l *event.Listing, accepts bool) string {
	if l.Rates == nil {
		return unknown
	}
	rate := l.Rates.SYNs
	if accepts {
		rate = l.Rates.Accepts
	}
	if rate == nil {
		return unknown
	}
	return strconv.FormatFloat(*rate, 'f', 1, 64)
}

// ownerCell is the first process's name, and how many more there are; "(none)" where it is
// known that no process holds it.
func ownerCell(l *event.Listing) string {
	if len(l.Processes) == 0 {
		if l.OwnersKnown {
			return "(none)"
		}
		return unknown
	}
	name := l.Processes[0].Comm
	if name == "" {
		name = unknown
	}
	if more := len(l.Processes) - 1; more > 0 {
		name += " +" + strconv.Itoa(more)
	}
	return name
}

func backlogCell(l *event.Listing) string {
	if l.Backlog == nil {
		return unknown
	}
	switch l.Backlog.By {
	case event.BacklogListen:
		return "listen()"
	case event.BacklogEqual:
		return "listen() or somaxconn, which is equal: what was asked for is not known"
	case event.BacklogSomaxconn:
		return "listen(); somaxconn was lowered since"
	default:
		return unknown
	}
}

// warningLines is how many warnings are told below the table: on a node where something is
// wrong with all, they say the same.
const warningLines = 20

func listingWarnings(w io.Writer, list []event.Listing, opts Options) error {
	p := &printer{w: w, opts: opts}
	total := 0
	for i := range list {
		l := &list[i]
		for _, warning := range l.Warnings {
			total++
			if total == 1 {
				p.line("")
			}
			if total > warningLines {
				continue
			}
			address, _ := elide(appendEndpoint(nil, l.Listener.Addr, l.Listener.Port), 0, opts.most(25), true)
			label := string(address)
			if len(l.Processes) > 0 {
				name, _ := elide(appendKnown(nil, l.Processes[0].Comm), 0, opts.most(15), false)
				label += " (" + string(name) + " " + strconv.FormatUint(uint64(l.Processes[0].PID), 10) + ")"
			}
			p.text(opts.paint(styleYellow, label)+": ", Terminal(warning.Text)+" ["+Terminal(strings.Join(warning.Evidence, "; "))+"]")
		}
	}
	if more := total - warningLines; more > 0 {
		p.line("and " + opts.plural(uint64(more), "warning") + " more; -o json has all")
	}
	return p.err
}
