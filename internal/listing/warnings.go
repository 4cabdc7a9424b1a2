// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// Where warnings begin.
const (
	tinyBacklog   = 32   // a limit below it, on a listener that is busy
	busyRate      = 10.0 // SYNs a second that make one busy
	usualSomax    = 4096 // the kernel's own net.core.somaxconn since 5.4
	fewHandshakes = 2    // half-open ones that are nothing yet
)

// backlogOf says what limits a listener.
func backlogOf(queue *event.Queue, settings kernel.ListenSettings) *event.Backlog {
	if queue == nil {
		return nil
	}
	b := &event.Backlog{Limit: queue.Limit, Somaxconn: settings.Somaxconn}
	if b.Somaxconn != nil {
		switch somaxconn := *b.Somaxconn; {
		case queue.Limit < somaxconn:
			b.By = event.BacklogListen
		case queue.Limit == somaxconn:
			b.By = event.BacklogEqual
		default:
			b.By = event.BacklogSomaxconn
		}
	}
	return b
}

// warningsOf judges a listener by what is known of it. asleep names the system calls
// that all its holders' threads were seen to sleep in, twice, without having run in
// between.
func warningsOf(l *event.Listing, settings kernel.ListenSettings, asleep []string) []event.Warning {
	list := []event.Warning{}
	warn := func(id, text string, evidence ...string) {
		list = append(list, event.Warning{ID: id, Text: text, Evidence: evidence})
	}
	accept, syn := l.Listener.AcceptQueue, l.Listener.SynQueue
	queued := ""
	if accept != nil && accept.Len > 0 {
		queued = fmt.Sprintf("accept queue %d of %d", accept.Len, accept.Limit)
		switch {
		case accept.Len > accept.Limit:
			warn(event.WarnAcceptQueue,
				"its accept queue is full: who comes is dropped", queued)
		case 2*uint64(accept.Len) > uint64(accept.Limit):
			warn(event.WarnAcceptQueue, "its accept queue is more than half full",
				queued)
		}
	}
	if syn != nil && syn.Len > fewHandshakes && 2*uint64(syn.Len) > uint64(syn.Limit) {
		text := "its SYN queue is more than half full"
		if syn.Len >= syn.Limit {
			text = "its SYN queue is full: a SYN that comes is answered by a cookie, or dropped"
		}
		warn(event.WarnSynQueue, text,
			fmt.Sprintf("SYN queue %d of %d", syn.Len, syn.Limit))
	}
	if b := l.Backlog; b != nil {
		if b.By == event.BacklogEqual && *b.Somaxconn < usualSomax {
			warn(event.WarnCapped,
				"net.core.somaxconn caps its backlog, or happens to equal what listen() asked for, which is not known",
				fmt.Sprintf("limit %d, net.core.somaxconn %d", b.Limit,
					*b.Somaxconn))
		}
		if busy := busyBy(l); b.Limit < tinyBacklog && busy != "" {
			warn(event.WarnTiny, "its backlog is tiny, and it is busy",
				fmt.Sprintf("limit %d", b.Limit), busy)
		}
	}
	if settings.Syncookies != nil && *settings.Syncookies == 0 {
		warn(event.WarnCookies,
			"SYN cookies are off: it drops SYNs when its SYN queue is full", "net.ipv4.tcp_syncookies 0")
	}
	switch {
	case queued == "":
	case l.Rates != nil && l.Rates.Accepts != nil && *l.Rates.Accepts == 0 &&
		l.Rates.SYNs != nil && *l.Rates.SYNs > 0:
		warn(event.WarnNobody, "clients come and nobody accepts", queued,
			fmt.Sprintf("%.1f SYNs and 0 accepts a second", *l.Rates.SYNs))
	case l.OwnersKnown && len(l.Processes) == 0:
		warn(event.WarnNobody, "no process holds it, so only the kernel could accept",
			queued, "held by 0 processes")
	}
	if len(asleep) > 0 {
		warn(event.WarnElsewhere,
			"connections wait, and all its holders' threads sleep in something else",
			queued,
			"asleep in "+strings.Join(asleep, ", ")+", seen twice without having run")
	}
	return list
}

// busyBy says what shows that a listener is busy now; empty where nothing does. Drops do not: they
// are of its whole life.
func busyBy(l *event.Listing) string {
	switch accept := l.Listener.AcceptQueue; {
	case l.Rates != nil && l.Rates.SYNs != nil && *l.Rates.SYNs >= busyRate:
		return fmt.Sprintf("%.1f SYNs a second", *l.Rates.SYNs)
	case accept != nil && accept.Len > accept.Limit/2 && accept.Len > 0:
		return fmt.Sprintf("accept queue %d of %d", accept.Len, accept.Limit)
	}
	return ""
}
