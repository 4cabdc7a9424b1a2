// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// shortage is what accept() wants for and does not get, by its error.
type shortage struct {
	errno  string
	says   string // "accept() of nginx (pid 7) fails: ..."
	owner  string
	advice []string
}

// shortages are those that accept() tells, the commonest first.
var shortages = []shortage{
	{errno: "EMFILE", says: "its file descriptors are all in use", owner: "application"},
	{errno: "ENFILE", says: "the files that the machine may have open are all in use",
		owner: "node", advice: []string{
			"find who has so many files open: ls /proc/*/fd | sort | uniq -c, lsof"}},
	{errno: "ENOMEM", says: "the kernel has no memory for the connection", owner: "node",
		advice: []string{
			"look at the memory limit of its cgroup (memory.max, memory.events) and at the kernel's log"}},
	{errno: "ENOBUFS", says: "the kernel has no buffers for the connection", owner: "node",
		advice: []string{
			"look at net.ipv4.tcp_mem and the memory limit of its cgroup (memory.max, memory.events), and at the kernel's log"}},
}

// acceptFails reports a loop that calls accept() and gets no connection for want of something. It
// is no use to say what it did meanwhile: a loop that tries again at once computes, one that waits
// before it does sleeps.
func acceptFails(s *Subject) *Found {
	if s.StallMs < standingMs && s.PressedMs < sustainedMs {
		return nil
	}
	failed := make(map[string]uint64)
	who := map[uint32]bool{}
	for _, f := range s.AcceptFailures {
		failed[f.Errno] += f.Count
		who[f.PID] = true
	}
	full := s.fullTable()
	if len(failed) == 0 && full != nil {
		who[full.PID] = true
	}
	i := slices.IndexFunc(shortages, func(sh shortage) bool {
		return failed[sh.errno] > 0 ||
			sh.errno == "EMFILE" && full != nil
	})
	if i < 0 {
		return nil
	}
	lack := shortages[i]
	id := event.FindingAcceptLoopBlocked
	if s.mainly(doingBusy, doingAccepting, DoingStarved) {
		id = event.FindingAcceptLoopBusy // with trying again
	}
	f := newFound(id, s.drops).about(s.Listener, orElse(s.named(who), s.looping()))
	f.rests, f.Owner = nil, lack.owner // what its threads did matters no more
	s.cite(f)
	if n := failed[lack.errno]; n > 0 {
		f.Confidence = event.ConfidenceProven
		f.saw("calls of accept() that failed with "+lack.errno+", in the short times in which they were watched", n, "calls")
	} else {
		f.saw("calls of accept() that were seen to fail",
			"none (calls through io_uring are not seen, and the rest was watched only for a part of the time)", "")
		f.Settles = "the server's log, or strace -f -e trace=accept4 " +
			attach(f.Processes) + ": accept() returns EMFILE"
	}
	says := lack.says
	if d := s.mostOpen(who); d != nil && lack.errno == "EMFILE" {
		says = fmt.Sprintf("%d of the %d file descriptors that it may have (RLIMIT_NOFILE) are in use", min(d.Open, d.Limit), d.Limit)
		f.saw(fmt.Sprintf("open descriptors of pid %d below its limit", d.PID),
			min(d.Open, d.Limit), "descriptors")
		f.saw("RLIMIT_NOFILE, its limit of open descriptors", d.Limit, "descriptors")
		f.saw("counts in which all were in use", fmt.Sprintf("%d of %d", d.Full,
			d.Readings), "")
	}
	if s.e.Files.Max > 0 && lack.errno == "ENFILE" {
		says = fmt.Sprintf("%d of the %d files that the machine may have open (fs.file-max) are", s.e.Files.Open, s.e.Files.Max)
		f.saw("open files of the machine (fs.file-nr)", s.e.Files.Open, "files")
		f.saw("fs.file-max", s.e.Files.Max, "files")
	}
	if !s.lasting() {
		f.Severity = event.SeverityContributing
	}
	how := "fails"
	if failed[lack.errno] == 0 {
		how = "can only fail"
	}
	f.Because = fmt.Sprintf("accept() of %s %s with %s: %s", f.actors(), how, lack.errno, says)
	f.Title = f.Because
	switch lack.errno {
	case "EMFILE":
		f.turn(descriptorKnob(s.mostOpen(who), f.Processes))
		f.fix("or have it keep fewer open: ls -l /proc/" +
			strings.Fields(pids(f.Processes))[0] + "/fd shows what they are; " +
			"limit its connections below what it has descriptors for, and close those that are idle")
	case "ENFILE":
		f.turn(event.Knob{Name: "fs.file-max", Now: strconv.FormatUint(s.e.Files.Max, 10),
			Try:   strconv.FormatUint(max(2*s.e.Files.Max, 65536), 10),
			Where: "/etc/sysctl.d/ and with sysctl -w, on the node", Why: "it is of all processes together"})
	}
	f.fix(lack.advice...)
	return f
}

// fullTable is a process that had no descriptor left in most of the times that they were counted;
// nil for none.
func (s *Subject) fullTable() *evidence.Descriptors {
	for i := range s.Descriptors {
		if d := &s.Descriptors[i]; d.Full > 0 &&
			float64(d.Full) >= mostly*float64(d.Readings) {
			return d
		}
	}
	return nil
}

// mostOpen is that of these processes which is nearest to its limit; nil where none was counted.
func (s *Subject) mostOpen(who map[uint32]bool) (most *evidence.Descriptors) {
	for i := range s.Descriptors {
		d := &s.Descriptors[i]
		if who[d.PID] && d.Limit > 0 && (most == nil ||
			d.Open*most.Limit > most.Open*d.Limit) {
			most = d
		}
	}
	return most
}

// descriptorSettings says where common servers and managers take RLIMIT_NOFILE from, by the name of
// the process.
var descriptorSettings = []struct{ comm, where string }{
	{"nginx", "nginx.conf: worker_rlimit_nofile"},
	{"haproxy", "haproxy.cfg: ulimit-n, or maxconn, in the global section"},
	{"php-fpm", "the pool's rlimit_files"},
	{"mysqld", "open_files_limit"},
	{"mariadbd", "open_files_limit"},
	{"redis-server", "redis.conf: maxclients, which it follows"},
}

// descriptorKnob is RLIMIT_NOFILE of a server.
func descriptorKnob(d *evidence.Descriptors, processes []event.Process) event.Knob {
	k := event.Knob{Name: "RLIMIT_NOFILE", Try: "65536",
		Where: "LimitNOFILE= of its unit, ulimit -n where it is started, or prlimit --nofile while it runs",
		Why:   "each connection takes a descriptor"}
	if d != nil {
		k.Now, k.Try = strconv.FormatUint(d.Limit, 10), strconv.FormatUint(max(65536,
			4*d.Limit), 10)
	}
	for _, p := range processes {
		for _, s := range descriptorSettings {
			if strings.HasPrefix(p.Comm, s.comm) {
				k.Where = s.where + ", or " + k.Where
				return k
			}
		}
		if p.Container != nil {
			k.Where = "--ulimit nofile= of the container, or the runtime's own limit"
		}
	}
	return k
}

// orElse is the first list that is not empty.
func orElse(list, other []event.Process) []event.Process {
	if len(list) == 0 {
		return other
	}
	return list
}
