// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/owner/containers"
	"github.com/synspy/synspy/internal/render"
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
	options CountersOptions
	log     *slog.Logger
	owners  *owner.Table
	names   *containers.Names
	snmp    *kernel.SNMPReader
	only    uint64          // the one namespace that was asked for, 0: all
	told    map[uint64]bool // namespaces that could not be read, 0 for processes
}

func newCounterReader(options CountersOptions, log *slog.Logger) *counterReader {
	r := &counterReader{options: options, log: log, owners: owner.New("/proc", log), names: askRuntimes(log),
		snmp: kernel.NewSNMPReader(), told: make(map[uint64]bool)}
	r.owners.AskRuntimes(r.names)
	return r
}

// throughAtMost is how many of a namespace's processes are tried: some may end
// meanwhile, but hardly all of them.
const throughAtMost = 8

// read reads all namespaces. One that vanishes meanwhile is left out; what these
// privileges do not let it read is told once. It is an error only where that was
// asked for.
func (r *counterReader) read() ([]reading, error) {
	namespaces, hidden, err := kernel.NetNamespaces("/proc")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if hidden > 0 && r.only == 0 {
		r.tellOnce(0, fmt.Sprintf("not shown: %s of processes that these privileges do not let it ask\n%s",
			render.Plural(hidden, "network namespace"), needsPtrace()))
	}
	if what, takes := unseenProcesses(); what != "" && r.only == 0 {
		r.tellOnce(math.MaxUint64, fmt.Sprintf("%s are not seen: network namespaces of theirs may be missing\nthat takes %s", what, takes))
	}
	readings := make([]reading, 0, len(namespaces))
	for _, ns := range namespaces {
		if r.only != 0 && r.only != ns.Inode {
			continue
		}
		counters, _, err := readNetNS(r.snmp, ns)
		switch {
		case err == nil:
			readings = append(readings, reading{ns, time.Now(), counters})
		case errors.Is(err, fs.ErrPermission) && r.only != 0:
			return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
		case errors.Is(err, fs.ErrPermission):
			r.tellOnce(ns.Inode, err.Error())
		default:
			r.log.Debug("read counters", "netns", ns.Inode, "error", err) // it has vanished
		}
	}
	return readings, nil
}

// readNetNS reads a namespace through one of its processes, which it names, or by
// entering it; then the process is 0. Errors wrap fs.ErrPermission where these
// privileges do not let it.
func readNetNS(snmp *kernel.SNMPReader, ns kernel.NetNS) (counters kernel.SNMP, through uint32, err error) {
	var errs []error
	for _, pid := range ns.Through[:min(len(ns.Through), throughAtMost)] {
		counters, err := snmp.Read("/proc", pid, ns.Inode)
		if err == nil {
			return counters, pid, nil
		}
		errs = append(errs, err)
	}
	for _, name := range ns.Names {
		counters, err := snmp.Enter(kernel.NamedNetNS(name), ns.Inode)
		if err == nil {
			return counters, 0, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("network namespace %q has no process to be read through: %w\n%s", name, err,
				needsPowers("to enter it takes", unix.CAP_SYS_ADMIN))
		}
		errs = append(errs, err)
	}
	return nil, 0, errors.Join(errs...)
}

func (r *counterReader) tellOnce(key uint64, text string) {
	if !r.told[key] {
		r.told[key] = true
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			lines = append(lines, render.Terminal(line))
		}
		sayTo(r.options.Status, strings.Join(lines, "\n  "))
	}
}

// pidsAtMost is how many processes a record names.
const pidsAtMost = 8

// namesWait is how long the names of containers are waited for.
const namesWait = 500 * time.Millisecond

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
		holders = append(holders, owner.Holder{Socket: ns.Inode, PID: ns.PIDs[0], Comm: record.Comm})
	}
	// The owners' table takes any number for what is held, a namespace's too.
	r.owners.Replace(holders)
	held := make([]uint64, len(holders))
	for i := range holders {
		held[i] = holders[i].Socket
	}
	r.owners.AwaitNames(namesWait, held...)
	for i := range records {
		processes := r.owners.Processes(records[i].NetNS, 0)
		records[i].Cgroup, records[i].Container, records[i].Pod = owner.Top(processes)
	}
}
