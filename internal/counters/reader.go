// SPDX-License-Identifier: Apache-2.0

package counters

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/owner/containers"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// reading is the counters of one namespace at one time.
type reading struct {
	ns       kernel.NetNS
	at       time.Time
	counters kernel.SNMP
}

// counterReader reads the counters of every namespace there is, once each however
// many processes are in it.
type counterReader struct {
	options Options
	log     *slog.Logger
	owners  *owner.Table
	names   *containers.Names
	snmp    *kernel.SNMPReader
	only    uint64          // the one namespace that was asked for, 0: all
	told    map[uint64]bool // namespaces that could not be read, 0 for processes
}

func newCounterReader(options Options, log *slog.Logger) *counterReader {
	r := &counterReader{options: options, log: log, owners: owner.New("/proc", log),
		names: session.AskRuntimes(log),
		snmp:  kernel.NewSNMPReader(), told: make(map[uint64]bool)}
	r.owners.AskRuntimes(r.names)
	return r
}

// read reads all namespaces. One that vanishes meanwhile is left out; what these
// privileges do not let it read is told once. It is an error only where that was
// asked for.
func (r *counterReader) read() ([]reading, error) {
	namespaces, hidden, err := kernel.NetNamespaces("/proc")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if hidden > 0 && r.only == 0 {
		r.sayOnce(0,
			fmt.Sprintf("not shown: %s of processes that these privileges do not let it ask\n%s",
				render.Plural(hidden, "network namespace"), session.NeedsPtrace()))
	}
	if what, takes := session.UnseenProcesses(); what != "" && r.only == 0 {
		r.sayOnce(math.MaxUint64,
			fmt.Sprintf("%s are not seen: network namespaces of theirs may be missing\nthat takes %s", what, takes))
	}
	readings := make([]reading, 0, len(namespaces))
	for _, ns := range namespaces {
		if r.only != 0 && r.only != ns.Inode {
			continue
		}
		counters, _, err := session.ReadNetNS(r.snmp, ns)
		switch {
		case err == nil:
			readings = append(readings, reading{ns, time.Now(), counters})
		case errors.Is(err, fs.ErrPermission) && r.only != 0:
			return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
		case errors.Is(err, fs.ErrPermission):
			r.sayOnce(ns.Inode, err.Error())
		default:
			r.log.Debug("read counters", "netns", ns.Inode, "error",
				err) // it has vanished
		}
	}
	return readings, nil
}

func (r *counterReader) sayOnce(key uint64, text string) {
	if !r.told[key] {
		r.told[key] = true
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			lines = append(lines, render.Terminal(line))
		}
		cli.SayTo(r.options.Status, strings.Join(lines, "\n  "))
	}
}

// pidsAtMost is how many processes a record names.
const pidsAtMost = 8

// NamesWait is how long the names of containers are waited for.
const NamesWait = 500 * time.Millisecond

// describe completes records with what is known of their namespaces: name, first
// processes, and where the first of these runs.
func (r *counterReader) describe(records []event.Counters, of []reading) {
	var holders []owner.Holder
	for i := range records {
		ns, record := of[i].ns, &records[i]
		record.Header = event.Head("counters")
		if len(ns.Names) > 0 {
			record.Name = ns.Names[0]
		}
		if len(ns.PIDs) == 0 {
			continue
		}
		record.PIDs = ns.PIDs[:min(len(ns.PIDs), pidsAtMost)]
		record.Comm = kernel.Comm("/proc", ns.PIDs[0])
		holders = append(holders, owner.Holder{Socket: ns.Inode, PID: ns.PIDs[0],
			Comm: record.Comm})
	}
	// The owners' table takes any number for what is held, a namespace's too.
	r.owners.Replace(holders)
	held := make([]uint64, len(holders))
	for i := range holders {
		held[i] = holders[i].Socket
	}
	r.owners.AwaitNames(NamesWait, held...)
	for i := range records {
		processes := r.owners.Processes(records[i].NetNS, 0)
		records[i].Cgroup, records[i].Container, records[i].Pod = owner.Top(processes)
	}
}
