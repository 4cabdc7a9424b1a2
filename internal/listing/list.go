// SPDX-License-Identifier: Apache-2.0

// Package listing lists listeners, once or again and again.
package listing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/counters"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/thread"
)

// Options are those of synspy listeners.
type Options struct {
	Watch    session.Watch // filters, --btf and --backend
	Sort     string
	Repeat   bool // until told to stop
	Interval time.Duration
	Duration time.Duration // of a repetition, 0: until told to stop
	Count    uint64        // of repetitions, 0: no limit
	ExitCode bool          // ErrWarned where there is a warning
	Status   io.Writer     // for people: standard error
}

// ErrWarned says that some listener has a warning.
var ErrWarned = errors.New("there are warnings")

// ErrNoListing says that not one network namespace's listeners could be listed.
var ErrNoListing = errors.New("unable to list listeners")

// SortOrders lists what --sort takes.
func SortOrders() []string {
	return []string{"address", "queue", "drops", "pid", "comm", "warnings", "rate"}
}

// Run writes every listening TCP socket that the filters let through. It
// attaches nothing unless told to repeat. Errors wrap ErrUsage, ErrUnable, ErrWarned,
// ErrNoListing, or are those of the writer.
func Run(ctx context.Context, to io.Writer, writing cli.Writing, options Options,
	log *slog.Logger) (err error) {
	if !slices.Contains(SortOrders(), options.Sort) {
		return cli.Usage("--sort %q: want one of %s", options.Sort,
			strings.Join(SortOrders(), ", "))
	}
	l := &listing{options: options, to: to, render: writing.Options, log: log,
		owners: owner.New("/proc", log),
		sampler: thread.NewSampler("/proc",
			log), chosen: session.NewListeners(options.Watch.Filter),
		told: make(map[string]bool)}
	names := session.AskRuntimes(log)
	l.owners.AskRuntimes(names)
	defer func() { err = errors.Join(err, names.Close()) }()
	if options.Repeat {
		return cli.IgnoreClosedPipe(l.repeat(ctx))
	}
	lister, err := holders.OpenLister(options.Watch.BTF)
	if err == nil {
		defer lister.Close()
		l.holders = lister.Each
	} else {
		l.withoutBPF(err)
	}
	return cli.IgnoreClosedPipe(l.round(nil))
}

// listing is a run.
type listing struct {
	options Options
	to      io.Writer
	render  render.Options
	log     *slog.Logger
	owners  *owner.Table
	sampler *thread.Sampler
	chosen  *session.Listeners                // the filters
	holders func(func(*holders.Holder)) error // nil without BPF
	told    map[string]bool
	rounds  uint64
}

// withoutBPF says once what is missing.
func (l *listing) withoutBPF(err error) {
	l.log.Debug("list without BPF", "error", err)
	text := "BPF is not permitted here, or not possible: SYN queues are not shown, and owners are read from /proc, those that it shows\n" +
		"  sudo synspy listeners shows all; synspy check tells why not"
	// Without privileges the verifier refuses as it does where a kernel is locked down.
	if why := cli.Refusal(err, nil); why != nil &&
		!slices.ContainsFunc(cli.MissingCapabilities(), cli.Required) {
		text = "SYN queues are not shown, and owners are read from /proc, those that it shows\n  " + strings.Join(why, "\n  ")
	}
	l.say(text)
}

// round lists once and writes.
func (l *listing) round(rates func(socket uint64) *event.Rates) error {
	all, err := l.gather()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(f *found) bool { return !l.wanted(f) })
	l.sampleWaiting(all)
	rated := false
	if rates != nil {
		for _, f := range all {
			f.rates = rates(f.socket)
			rated = rated || f.rates != nil
		}
	}
	d := describer{owners: l.owners, at: event.Time{Time: time.Now()}, mono: kernel.Monotonic()}
	l.sort(all, &d)
	l.rounds++
	if l.rounds > 1 && l.render.Format != render.FormatJSON {
		if _, err := fmt.Fprintln(l.to); err != nil {
			return err
		}
	}
	warned := false
	out := render.NewListingWriter(l.to, rated, l.render)
	for i, f := range all {
		listing := d.describe(f)
		warned = warned || len(listing.Warnings) > 0
		if err := out.Write(listing); err != nil {
			return err
		}
		all[i] = nil // its room is for the table
	}
	if err := out.Close(); err != nil {
		return err
	}
	if len(all) == 0 {
		l.say("no listener matches")
	}
	if warned && l.options.ExitCode && !l.options.Repeat {
		return ErrWarned
	}
	return nil
}

// gather merges what inet_diag lists, namespace by namespace, with who holds it.
func (l *listing) gather() ([]*found, error) {
	namespaces, hidden, err := kernel.NetNamespaces("/proc")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoListing, err)
	}
	if what, takes := session.UnseenProcesses(); what != "" {
		l.say(fmt.Sprintf("%s are not seen: holders, and network namespaces of theirs, may be missing\n  that takes %s", what, takes))
	}
	only := l.options.Watch.Filter.NetNS
	if hidden > 0 && only == 0 {
		l.say(fmt.Sprintf("not shown, unless a process that may be read holds them: listeners of %s of other users\n  %s",
			render.Plural(hidden, "network namespace"), session.NeedsPtrace()))
	}
	list := foundList{byInode: make(map[uint64]*found), spaces: make(map[uint64]*foundSpace)}
	var errs []error
	outside := 0 // namespaces that were read through a process, from outside
	allReadable := hidden == 0 && kernel.ShowsAllProcesses()
	for _, ns := range namespaces {
		// A process that does not tell its namespace may not show its files either.
		allReadable = allReadable && len(ns.PIDs) == len(ns.Through)
		if only != 0 && only != ns.Inode {
			continue
		}
		space := &foundSpace{inode: ns.Inode}
		if len(ns.Names) > 0 {
			space.name = ns.Names[0]
		}
		list.spaces[ns.Inode] = space
		if err := list.read(ns, space); err != nil {
			errs = append(errs, err)
			l.log.Debug("list listening sockets", "netns", ns.Inode, "error", err)
			continue
		}
		if space.settings == (kernel.ListenSettings{}) {
			outside++
		}
	}
	complete, err := l.readOwners(&list)
	if err != nil {
		return nil, err
	}
	complete = complete && allReadable
	all := list.all
	if len(all) == 0 && len(errs) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrNoListing, errors.Join(errs...))
	}
	if refused := countRefused(errs); refused > 0 {
		l.say(fmt.Sprintf("%s could not be entered: what no process holds there is not shown, and no drops, limits or sysctls without BPF\n  %s",
			render.Plural(refused,
				"network namespace"), session.NeedsPowers("to enter one takes", unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE)))
	}
	if outside > 0 {
		l.say(fmt.Sprintf("%s could not be entered: drops and sysctls there are not shown, and limits only of what a process is seen to hold\n  %s",
			render.Plural(outside,
				"network namespace"), session.NeedsPowers(
				"to enter one takes", unix.CAP_SYS_ADMIN)))
	}
	l.owners.AwaitNames(counters.NamesWait, list.inodes()...)
	slices.SortFunc(all, (*found).compare)
	countGroups(all)
	for _, f := range all {
		f.ownersKnown = complete
	}
	return all, nil
}

func countRefused(errs []error) (n int) {
	for _, err := range errs {
		if errors.Is(err, fs.ErrPermission) {
			n++
		}
	}
	return n
}

// readOwners asks who holds which, and adds listeners of namespaces that could not be
// entered. Complete says that nobody's holding was hidden.
func (l *listing) readOwners(list *foundList) (complete bool, err error) {
	if l.holders != nil {
		only := l.options.Watch.Filter.NetNS
		err = l.owners.ReplaceBy(func(enter func(owner.Holder)) error {
			return l.holders(func(h *holders.Holder) {
				s := &h.Listener
				if !s.Known || only != 0 && s.NetNS != only {
					return
				}
				list.hold(s)
				enter(owner.Holder{Socket: s.Inode, Inode: s.Inode, PID: h.PID,
					Comm: h.Comm, StartNs: h.Start})
			})
		})
		if err == nil {
			return kernel.SeesAllProcesses(), nil
		}
		l.withoutBPF(err)
		l.holders = nil
	}
	return l.scanOwners(list)
}

// scanOwners reads them from /proc.
func (l *listing) scanOwners(list *foundList) (complete bool, err error) {
	owners, unreadable, err := owner.ScanProc("/proc",
		func(inode uint64) bool { return list.byInode[inode] != nil })
	if err != nil {
		return false, fmt.Errorf("list holders of listeners: %w", err)
	}
	for i := range owners {
		owners[i].Socket = owners[i].Inode
	}
	l.owners.Replace(owners)
	if unreadable > 0 {
		l.say(fmt.Sprintf("%s could not be asked what they hold: owners may be missing\n  %s",
			countProcesses(unreadable), session.NeedsPowers("other users' processes take", unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH)))
	}
	return unreadable == 0 && os.Geteuid() == 0 && kernel.ShowsAllProcesses(), nil
}

func countProcesses(n int) string {
	if n == 1 {
		return "1 process"
	}
	return render.Thousands(uint64(n)) + " processes"
}

// wanted asks the filters.
func (l *listing) wanted(f *found) bool {
	owned, _ := l.owners.Match(f.inode, l.options.Watch.Owner) // names were waited for
	return owned &&
		(l.chosen.All() ||
			l.chosen.Matches(&message.Listener{Addr: f.addr, Port: f.port,
				NetNS: f.netns}))
}

// Bounds of looking at threads, and the time between two looks.
const (
	maxSampled  = 256 // listeners with something in their queue
	sampleAgain = 50 * time.Millisecond
)

// sampleWaiting samples the threads of those whose clients wait.
func (l *listing) sampleWaiting(all []*found) {
	var waiting, asleep []*found
	for _, f := range all {
		if !f.limited || f.accept.Len == 0 || len(waiting) == maxSampled {
			continue
		}
		if processes := l.owners.Processes(f.inode,
			kernel.Monotonic()); len(processes) > 0 {
			f.looked = &looked{processes: processes}
			waiting = append(waiting, f)
		}
	}
	once := make(map[uint32]*thread.Sample)
	for _, f := range waiting {
		if calls := l.sample(f, once); len(calls) > 0 {
			asleep = append(asleep, f)
		}
	}
	l.sayRefused(once)
	if len(asleep) == 0 {
		return
	}
	time.Sleep(sampleAgain)
	clear(once)
	for _, f := range asleep {
		f.looked.asleep = l.sample(f, once)
		for i := range f.looked.processes {
			for _, t := range f.looked.processes[i].Threads {
				if t.RanNs != nil && *t.RanNs > 0 {
					f.looked.asleep = nil
				}
			}
		}
	}
}

// sayRefused says of how many holders it could not be seen whether they sleep.
func (l *listing) sayRefused(samples map[uint32]*thread.Sample) {
	refused := make(session.Refusals)
	var processes []event.Process
	for pid, sample := range samples {
		if sample != nil {
			refused.Files(pid, sample.Refused)
			processes = append(processes, event.Process{PID: pid})
		}
	}
	for _, g := range refused.Of(processes) {
		if g.Need == evidence.NeedCalls {
			l.say(fmt.Sprintf("connections wait; whether those sleep who should accept them could not be seen, of %s\n  that takes %s",
				countProcesses(len(g.PIDs)), strings.Join(g.By, " and ")))
		}
	}
}

// sample looks at the holders' threads, and names the calls that all of them sleep in where
// none of these can accept. A process is read once, however many listeners it has.
func (l *listing) sample(f *found, once map[uint32]*thread.Sample) (calls []string) {
	elsewhere := true // somebody holds it, so that it is known who
	for i := range f.looked.processes {
		p := &f.looked.processes[i]
		if i >= session.SampledProcesses {
			elsewhere = false
			break
		}
		sample, ok := once[p.PID]
		if !ok {
			var err error
			if sample, err = l.sampler.Sample(p.PID, p.Start, f.inode); err != nil {
				l.log.Debug("sample threads", "pid", p.PID, "error", err)
			}
			once[p.PID] = sample
		}
		if sample == nil {
			elsewhere = false
			continue
		}
		session.FillSample(p, sample, f.inode)
		in, yes := sample.Elsewhere(f.inode)
		elsewhere = elsewhere && yes
		for _, call := range in {
			if !slices.Contains(calls, call) {
				calls = append(calls, call)
			}
		}
	}
	if !elsewhere {
		return nil
	}
	return calls
}

// sort puts them, which are in the order of their addresses, into the one asked for.
func (l *listing) sort(all []*found, d *describer) {
	var more func(*event.Listing) float64 // greatest first
	switch l.options.Sort {
	case "queue":
		more = fullness
	case "drops":
		more = func(e *event.Listing) float64 {
			if e.Drops == nil {
				return -1
			}
			return float64(e.Drops.Count)
		}
	case "warnings":
		more = func(e *event.Listing) float64 { return float64(len(e.Warnings)) }
	case "rate":
		more = func(e *event.Listing) float64 {
			if e.Rates == nil || e.Rates.SYNs == nil {
				return -1
			}
			return *e.Rates.SYNs
		}
	case "pid":
		more = func(e *event.Listing) float64 {
			if len(e.Processes) == 0 {
				return 0
			}
			return -float64(e.Processes[0].PID)
		}
	case "comm":
		for _, f := range all {
			f.comm = firstComm(d.describe(f))
		}
		slices.SortStableFunc(all,
			func(a, b *found) int { return cmp.Compare(a.comm, b.comm) })
	}
	if more != nil {
		for _, f := range all {
			f.weight = more(d.describe(f))
		}
		slices.SortStableFunc(all,
			func(a, b *found) int { return cmp.Compare(b.weight, a.weight) })
	}
}

func firstComm(e *event.Listing) string {
	if len(e.Processes) == 0 {
		return ""
	}
	return e.Processes[0].Comm
}

// fullness is how full the fuller of the two queues is.
func fullness(e *event.Listing) float64 {
	full := -1.0
	if q := e.Listener.AcceptQueue; q != nil {
		full = float64(q.Len) / float64(q.Limit+1) // which is what it holds
	}
	if q := e.Listener.SynQueue; q != nil && q.Limit > 0 {
		full = max(full, float64(q.Len)/float64(q.Limit))
	}
	return full
}

// say writes something for people, once.
func (l *listing) say(line string) {
	if !l.told[line] {
		l.told[line] = true
		cli.SayTo(l.options.Status, line)
	}
}
