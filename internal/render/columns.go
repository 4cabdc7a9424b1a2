// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"path"
	"strconv"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// column is one column of the stream. Its width is where the next one begins,
// not a limit: a longer text pushes the rest of its row aside, and the slack of
// later columns takes that up again. Up to grow the column stays as wide as its
// widest text so far; beyond most a text is shortened.
type column struct {
	title  string
	width  int
	grow   int
	most   int
	right  bool // numbers
	middle bool // shorten in the middle: both ends of an address matter
	color  bool // by what happened to the packet
	cell   func([]byte, Options, *event.Drop) []byte
}

// What the stream is laid out for. The default leaves a narrower terminal's
// margin, and without a terminal there is no reason to be wider.
const (
	defaultWidth = 119
	narrowBelow  = 100
	roomyFrom    = 160
)

// layout chooses the columns for the width, most important first on the left
// where the line may be cut.
func layout(opts Options) (columns []column, limit int) {
	width := opts.Width
	if width <= 0 {
		width = defaultWidth
	}
	last := func(c column) column { c.most = unlimited; return c }
	cause := column{title: "CAUSE", width: 17, most: 19, color: true, cell: causeCell}
	stage := column{title: "STAGE", width: 5, most: 7, cell: stageCell}
	action := column{title: "ACTION", width: 7, most: 7, color: true, cell: actionCell}
	client := column{title: "CLIENT", width: 14, grow: 21, most: 26, middle: true,
		cell: clientCell}
	arrow := column{title: "->", width: 2, most: 2, cell: text("->")}
	server := column{title: "LISTENER", width: 12, grow: 21, most: 26, middle: true,
		cell: serverCell}
	queue := column{title: "QUEUE", width: 7, grow: 11, most: 15, cell: shortQueueCell}
	try := column{title: "TRY", width: 3, most: 5, right: true, cell: tryCell}
	pid := column{title: "PID", width: 5, grow: 7, most: 7, right: true, cell: pidCell}
	comm := column{title: "COMM", width: 8, grow: 10, most: 19, cell: commCell}
	fullQueue := column{title: "QUEUE", width: 14, grow: 18, most: 22, cell: queueCell}
	place := last(column{title: "CONTAINER", cell: placeCell})
	if opts.Plain {
		for _, c := range []*column{&cause, &stage, &action, &client, &server, &queue, &pid,
			&comm, &try} {
			c.most = unlimited
		}
		width = unlimited
	}
	switch {
	case opts.Format == FormatWide:
		client.width, client.most, server.width, server.most = 21, unlimited, 21, unlimited
		comm.width, comm.most, place.width, place.grow = 15, unlimited, 14, 32
		place.cell = fullPlaceCell
		return []column{
			{title: "TIME", width: 26, most: 26,
				cell: clock("2006-01-02T15:04:05.000000")},
			cause, stage, action, client, arrow, server, fullQueue, try, pid, comm,
			place,
			{title: "NETNS", width: 10, most: unlimited, cell: netnsCell},
			{title: "INODE", width: 8, most: unlimited, cell: inodeCell},
			{title: "CLIENT_SEES", width: 11, most: unlimited, cell: seesCell},
			{title: "PROOF", width: 8, most: unlimited, cell: proofCell},
			{title: "KERNEL", width: 16, most: unlimited, cell: kernelCell},
			{title: "CGROUP", width: 30, most: unlimited, cell: cgroupCell},
			{title: "PROCESSES", most: unlimited, cell: processesCell},
		}, unlimited
	case width < narrowBelow:
		client.grow, client.most, server.grow, server.most = 19, 19, 14, 17
		return []column{
			{title: "TIME", width: 8, most: 12, cell: clock(time.TimeOnly)},
			cause, action, client, arrow, server, last(comm),
		}, width
	case width >= roomyFrom && !opts.Plain:
		client.width, client.most, server.width, server.most = 21, 47, 21, 47
		pid.width, comm.width, queue = 7, 15, fullQueue
	}
	return []column{
		{title: "TIME", width: 12, most: 12, cell: clock("15:04:05.000")},
		cause, stage, action, client, arrow, server, queue, try, pid, comm, place,
	}, width
}

// style is how the column's cell is painted.
func (c *column) style(d *event.Drop) string {
	switch {
	case !c.color:
		return styleNone
	case d.Type == "cookie":
		return styleCyan
	case d.Action == event.ActionReset:
		return styleYellow
	default:
		return styleRed
	}
}

// unknown stands for what a record does not say.
const unknown = "-"

func text(s string) func([]byte, Options, *event.Drop) []byte {
	return func(b []byte, _ Options, _ *event.Drop) []byte { return append(b, s...) }
}

func clock(layout string) func([]byte, Options, *event.Drop) []byte {
	return func(b []byte, o Options, d *event.Drop) []byte {
		return appendTime(b, d.Time.Time, o, layout)
	}
}

func causeCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Type == "cookie" {
		return append(b, "SYN cookie sent"...)
	}
	return append(b, d.Cause.String()...)
}

func stageCell(b []byte, _ Options, d *event.Drop) []byte { return append(b, d.Stage.String()...) }

func actionCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Action == event.ActionUnknown {
		return append(b, unknown...)
	}
	return append(b, d.Action.String()...)
}

func clientCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Client == nil {
		return append(b, unknown...)
	}
	return appendEndpoint(b, d.Client.Addr, d.Client.Port)
}

// serverCell is the address the client called, which says more than the
// wildcard that is listened on.
func serverCell(b []byte, _ Options, d *event.Drop) []byte {
	switch {
	case d.Server != nil:
		return appendEndpoint(b, d.Server.Addr, d.Server.Port)
	case d.Listener != nil:
		return appendEndpoint(b, d.Listener.Addr, d.Listener.Port)
	default:
		return append(b, unknown...)
	}
}

// shortQueueCell names the queue only where it is not the accept queue.
func shortQueueCell(b []byte, o Options, d *event.Drop) []byte {
	from := len(b)
	b = queueCell(b, o, d)
	if rest, ok := bytes.CutPrefix(b[from:], []byte("accept ")); ok {
		b = append(b[:from], rest...)
	}
	return b
}

// queueCell is the queue that the packet was to enter.
func queueCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Listener == nil {
		return append(b, unknown...)
	}
	accept, syn := d.Listener.AcceptQueue, d.Listener.SynQueue
	ofSyn := d.Type == "cookie" || d.Cause == event.CauseSynQueueFull ||
		d.Cause == event.CauseSynBacklogReserve
	switch {
	case syn != nil && (ofSyn || accept == nil):
		return appendQueue(append(b, "syn "...), syn.Len, syn.Limit)
	case accept != nil:
		return appendQueue(append(b, "accept "...), accept.Len, accept.Limit)
	default:
		return append(b, unknown...)
	}
}

func appendQueue(b []byte, n, limit uint32) []byte {
	b = strconv.AppendUint(b, uint64(n), 10)
	return strconv.AppendUint(append(b, '/'), uint64(limit), 10)
}

func tryCell(b []byte, _ Options, d *event.Drop) []byte {
	return appendNumber(b, uint64(d.Attempt))
}

func appendNumber(b []byte, n uint64) []byte {
	if n == 0 {
		return append(b, unknown...)
	}
	return strconv.AppendUint(b, n, 10)
}

func pidCell(b []byte, _ Options, d *event.Drop) []byte {
	if len(d.Processes) == 0 {
		return append(b, unknown...)
	}
	return appendNumber(b, uint64(d.Processes[0].PID))
}

// commCell is the first process, and how many more there are.
func commCell(b []byte, _ Options, d *event.Drop) []byte {
	if len(d.Processes) == 0 {
		return append(b, unknown...)
	}
	b = appendKnown(b, d.Processes[0].Comm)
	if more := len(d.Processes) - 1; more > 0 {
		b = strconv.AppendInt(append(b, " +"...), int64(more), 10)
	}
	return b
}

func appendKnown(b []byte, s string) []byte {
	if s == "" {
		return append(b, unknown...)
	}
	return appendTerminal(b, s)
}

// placeCell is the best short name for where the owner runs.
func placeCell(b []byte, o Options, d *event.Drop) []byte {
	switch {
	case d.Pod != nil && d.Pod.Name != "":
		if d.Pod.Namespace != "" {
			b = append(appendTerminal(b, d.Pod.Namespace), '/')
		}
		return appendTerminal(b, d.Pod.Name)
	case d.Container != nil && d.Container.Name != "":
		return appendTerminal(b, d.Container.Name)
	case d.Container != nil:
		return appendTerminal(b, d.Container.ID[:min(o.most(12), len(d.Container.ID))])
	case d.Cgroup != nil && d.Cgroup.Path != "":
		return appendTerminal(b, path.Base(d.Cgroup.Path))
	default:
		return append(b, unknown...)
	}
}

// fullPlaceCell also tells the containers of a pod apart.
func fullPlaceCell(b []byte, o Options, d *event.Drop) []byte {
	b = placeCell(b, o, d)
	if d.Pod != nil && d.Pod.Name != "" && d.Pod.Container != "" {
		b = appendTerminal(append(b, '/'), d.Pod.Container)
	}
	return b
}

func netnsCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Listener == nil {
		return append(b, unknown...)
	}
	return appendNumber(b, d.Listener.NetNS)
}

func inodeCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Listener == nil {
		return append(b, unknown...)
	}
	return appendNumber(b, d.Listener.Inode)
}

func seesCell(b []byte, _ Options, d *event.Drop) []byte { return appendKnown(b, d.ClientSees) }

func proofCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Proof == event.ProofUnknown {
		return append(b, unknown...)
	}
	return append(b, d.Proof.String()...)
}

func kernelCell(b []byte, _ Options, d *event.Drop) []byte {
	b = appendKnown(b, d.Kernel.Function)
	if d.Kernel.Reason != "" {
		b = append(appendTerminal(append(b, " ("...), d.Kernel.Reason), ')')
	}
	return b
}

func cgroupCell(b []byte, _ Options, d *event.Drop) []byte {
	if d.Cgroup == nil {
		return append(b, unknown...)
	}
	return appendKnown(b, d.Cgroup.Path)
}

func processesCell(b []byte, o Options, d *event.Drop) []byte {
	if len(d.Processes) == 0 {
		return append(b, unknown...)
	}
	for i := range d.Processes {
		p := &d.Processes[i]
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(appendNumber(b, uint64(p.PID)), ' ')
		b = append(appendKnown(b, p.Comm), ' ')
		b = appendTerminal(b, string(p.Role))
		if p.LastAcceptMs != nil {
			b = append(o.appendCount(append(b, " accepted "...), *p.LastAcceptMs),
				" ms ago"...)
		}
	}
	return b
}
