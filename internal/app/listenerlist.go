package app

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

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/render"
)

// ListenersOptions are those of synspy listeners.
type ListenersOptions struct {
	Watch    Watch // filters, --btf and --backend
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

// Listeners writes every listening TCP socket that the filters let through. It
// attaches nothing unless told to repeat. Errors wrap ErrUsage, ErrUnable, ErrWarned,
// ErrNoListing, or are those of the writer.
func Listeners(ctx context.Context, to io.Writer, writing Writing, options ListenersOptions, log *slog.Logger) (err error) {
	if !slices.Contains(SortOrders(), options.Sort) {
		return usage("--sort %q: want one of %s", options.Sort, strings.Join(SortOrders(), ", "))
	}
	l := &listing{options: options, to: to, render: writing.options, log: log, owners: owner.New("/proc", log),
		sampler: owner.NewSampler("/proc", log), chosen: newListeners(options.Watch.Filter), keys: make(map[socketName]uint64),
		told: make(map[string]bool)}
	names := askRuntimes(log)
	l.owners.AskRuntimes(names)
	defer func() { err = errors.Join(err, names.Close()) }()
	if options.Repeat {
		return ignoreClosedPipe(l.repeat(ctx))
	}
	lister, err := probe.OpenLister(options.Watch.BTF)
	if err == nil {
		defer lister.Close()
		l.holders = lister.Holders
	} else {
		l.withoutBPF(err)
	}
	return ignoreClosedPipe(l.round(nil))
}

// listing is a run.
type listing struct {
	options ListenersOptions
	to      io.Writer
	render  render.Options
	log     *slog.Logger
	owners  *owner.Table
	sampler *owner.Sampler
	chosen  *listeners                    // the filters
	holders func() (probe.Holders, error) // nil without BPF
	keys    map[socketName]uint64         // in the owners' table
	told    map[string]bool
	rounds  uint64
}

// socketName tells sockets apart: by inode, or where they have none by cookie.
type socketName struct{ netns, inode, cookie uint64 }

func nameOf(netns, inode, cookie uint64) socketName {
	if inode != 0 {
		cookie = 0
	}
	return socketName{netns, inode, cookie}
}

// found is a listener and what was gathered of it.
type found struct {
	event.Listing
	socket   uint64 // as the probe names it; 0 where it did not
	settings kernel.ListenSettings
	iface    *uint32
	key      uint64
	asleep   []string
}

// withoutBPF says once what is missing.
func (l *listing) withoutBPF(err error) {
	l.log.Debug("list without BPF", "error", err)
	text := "BPF is not permitted here, or not possible: SYN queues are not shown, and owners are read from /proc, those that it shows\n" +
		"  sudo synspy listeners shows all; synspy check tells why not"
	// Without privileges the verifier refuses as it does where a kernel is locked down.
	if why := refusal(err, nil); why != nil && !slices.ContainsFunc(missingCapabilities(), required) {
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
	at := event.Time{Time: time.Now()}
	list := make([]event.Listing, 0, len(all))
	all = slices.DeleteFunc(all, func(f *found) bool { return !l.wanted(f) })
	l.look(all)
	warned := false
	for _, f := range all {
		f.Header, f.Time = event.Head("listener"), at
		if rates != nil {
			f.Rates = rates(f.socket)
		}
		f.Warnings = warningsOf(&f.Listing, f.settings, f.asleep)
		warned = warned || len(f.Warnings) > 0
		list = append(list, f.Listing)
	}
	l.sort(list)
	l.rounds++
	if l.rounds > 1 && l.render.Format != render.FormatJSON {
		if _, err := fmt.Fprintln(l.to); err != nil {
			return err
		}
	}
	if err := render.Listings(l.to, list, l.render); err != nil {
		return err
	}
	if len(list) == 0 {
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
	if what, takes := unseenProcesses(); what != "" {
		l.say(fmt.Sprintf("%s are not seen: holders, and network namespaces of theirs, may be missing\n  that takes %s", what, takes))
	}
	only := l.options.Watch.Filter.NetNS
	if hidden > 0 && only == 0 {
		l.say(fmt.Sprintf("not shown, unless a process that may be read holds them: listeners of %s of other users\n  %s",
			render.Plural(hidden, "network namespace"), needsPtrace()))
	}
	byName := make(map[socketName]*found)
	var all []*found
	names, settings := make(map[uint64]string), make(map[uint64]kernel.ListenSettings)
	var errs []error
	outside := 0 // namespaces that were read through a process, from outside
	allReadable := hidden == 0 && kernel.ShowsAllProcesses()
	for _, ns := range namespaces {
		// A process that does not tell its namespace may not show its files either.
		allReadable = allReadable && len(ns.PIDs) == len(ns.Through)
		if only != 0 && only != ns.Inode {
			continue
		}
		if len(ns.Names) > 0 {
			names[ns.Inode] = ns.Names[0]
		}
		sockets, known, err := listNetNS(ns)
		if err != nil {
			errs = append(errs, err)
			l.log.Debug("list listening sockets", "netns", ns.Inode, "error", err)
			continue
		}
		settings[ns.Inode] = known
		if known == (kernel.ListenSettings{}) {
			outside++
		}
		for i := range sockets {
			f := foundBy(&sockets[i], ns.Inode)
			byName[nameOf(ns.Inode, sockets[i].Inode, sockets[i].Cookie)] = f
			all = append(all, f)
		}
	}
	owners, complete, err := l.readOwners(byName, &all)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 && len(errs) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrNoListing, errors.Join(errs...))
	}
	if refused := countRefused(errs); refused > 0 {
		l.say(fmt.Sprintf("%s could not be entered: what no process holds there is not shown, and no drops, limits or sysctls without BPF\n  %s",
			render.Plural(refused, "network namespace"), needsPowers("to enter one takes", unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE)))
	}
	if outside > 0 {
		l.say(fmt.Sprintf("%s could not be entered: drops and sysctls there are not shown, and limits only of what a process is seen to hold\n  %s",
			render.Plural(outside, "network namespace"), needsPowers("to enter one takes", unix.CAP_SYS_ADMIN)))
	}
	l.owners.Replace(owners)
	sockets := make([]uint64, len(all))
	for i, f := range all {
		sockets[i] = f.key
	}
	l.owners.AwaitNames(namesWait, sockets...)
	l.group(all)
	for _, f := range all {
		f.settings = settings[f.Listener.NetNS]
		f.NetNS = names[f.Listener.NetNS]
		f.Backlog = backlogOf(f.Listener.AcceptQueue, f.settings)
		f.Processes = l.owners.Processes(f.key, kernel.Monotonic())
		f.OwnersKnown = complete && allReadable || len(f.Processes) > 0
		f.Cgroup, f.Container, f.Pod = owner.Top(f.Processes)
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

// listNetNS lists a namespace's listeners: of one's own as it is, of others by entering them,
// or, where that is refused, through a process.
func listNetNS(ns kernel.NetNS) ([]kernel.Listening, kernel.ListenSettings, error) {
	if own, err := kernel.Inode("/proc/self/ns/net"); err == nil && own == ns.Inode {
		return kernel.ListeningSockets("", 0)
	}
	var paths []string
	for _, pid := range ns.Through[:min(len(ns.Through), throughAtMost)] {
		paths = append(paths, fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	for _, name := range ns.Names {
		paths = append(paths, kernel.NamedNetNS(name))
	}
	var errs []error
	for _, path := range paths {
		list, settings, err := kernel.ListeningSockets(path, ns.Inode)
		if err == nil {
			return list, settings, nil
		}
		errs = append(errs, err)
	}
	for _, pid := range ns.Through[:min(len(ns.Through), throughAtMost)] {
		list, err := kernel.ListeningFiles(fmt.Sprintf("/proc/%d/net", pid))
		if have, failed := kernel.Inode(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && failed == nil && have == ns.Inode {
			return list, kernel.ListenSettings{}, nil
		}
		errs = append(errs, err)
	}
	return nil, kernel.ListenSettings{}, errors.Join(errs...)
}

func foundBy(s *kernel.Listening, netns uint64) *found {
	f := &found{iface: s.Iface}
	f.Listener = event.Listener{Addr: s.Addr, Port: s.Port, Cookie: s.Cookie, Inode: s.Inode, NetNS: netns}
	f.V6Only, f.MPTCP = s.V6Only, s.MPTCP
	if s.Limit != nil {
		f.Listener.AcceptQueue = &event.Queue{Len: s.Len, Limit: *s.Limit}
	}
	if s.Drops != nil {
		f.Drops = &event.Drops{Count: uint64(*s.Drops), Approximate: true}
	}
	return f
}

// readOwners asks who holds which, and adds listeners of namespaces that could not be
// entered. Complete says that nobody's holding was hidden.
func (l *listing) readOwners(byName map[socketName]*found, all *[]*found) (owners []owner.Holder, complete bool, err error) {
	if l.holders == nil {
		return l.scanOwners(*all)
	}
	holders, err := l.holders()
	if err != nil {
		l.withoutBPF(err)
		l.holders = nil
		return l.scanOwners(*all)
	}
	only := l.options.Watch.Filter.NetNS
	for i := range holders.List {
		h := &holders.List[i]
		s := &h.Listener
		if !s.Known || only != 0 && s.NetNS != only {
			continue
		}
		name := nameOf(s.NetNS, s.Inode, s.Cookie)
		f := byName[name]
		if f == nil {
			f = &found{}
			f.Listener = event.Listener{Addr: s.Addr, Port: s.Port, Cookie: s.Cookie, Inode: s.Inode, NetNS: s.NetNS}
			byName[name] = f
			*all = append(*all, f)
		}
		accept, syn := s.Accept, s.Syn
		f.socket, f.Listener.AcceptQueue, f.Listener.SynQueue = s.Socket, &accept, &syn
		if s.Cgroup != 0 {
			f.Listener.Cgroup = &event.Cgroup{ID: s.Cgroup}
		}
		owners = append(owners, owner.Holder{Socket: l.keyOf(f), Inode: s.Inode, PID: h.PID, Comm: h.Comm, StartNs: h.Start})
	}
	return owners, kernel.SeesAllProcesses(), nil
}

// scanOwners reads them from /proc.
func (l *listing) scanOwners(all []*found) (owners []owner.Holder, complete bool, err error) {
	byInode := make(map[uint64]*found, len(all))
	for _, f := range all {
		if f.Listener.Inode != 0 {
			byInode[f.Listener.Inode] = f
		}
	}
	owners, unreadable, err := owner.ScanProc("/proc", func(inode uint64) bool { return byInode[inode] != nil })
	if err != nil {
		return nil, false, fmt.Errorf("list holders of listeners: %w", err)
	}
	for i := range owners {
		owners[i].Socket = l.keyOf(byInode[owners[i].Inode])
	}
	if unreadable > 0 {
		l.say(fmt.Sprintf("%s could not be asked what they hold: owners may be missing\n  %s",
			countProcesses(unreadable), needsPowers("other users' processes take", unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH)))
	}
	return owners, unreadable == 0 && os.Geteuid() == 0 && kernel.ShowsAllProcesses(), nil
}

func countProcesses(n int) string {
	if n == 1 {
		return "1 process"
	}
	return render.Thousands(uint64(n)) + " processes"
}

// keyOf gives a socket its place in the owners' table.
func (l *listing) keyOf(f *found) uint64 {
	if f.key == 0 {
		name := nameOf(f.Listener.NetNS, f.Listener.Inode, f.Listener.Cookie)
		if len(l.keys) > maxKnown {
			clear(l.keys)
		}
		if l.keys[name] == 0 {
			l.keys[name] = uint64(len(l.keys)) + 1
		}
		f.key = l.keys[name]
	}
	return f.key
}

// group counts the members of SO_REUSEPORT groups: no two other sockets may listen at
// one place.
func (l *listing) group(all []*found) {
	groups := make(map[place][]*found)
	for _, f := range all {
		if f.iface == nil { // devices are not known: they may be why
			continue
		}
		at := place{f.Listener.NetNS, f.Listener.Addr, f.Listener.Port, *f.iface}
		groups[at] = append(groups[at], f)
	}
	for _, members := range groups {
		if len(members) < 2 {
			continue
		}
		var full uint32
		for _, f := range members {
			if q := f.Listener.AcceptQueue; q != nil && q.Len > q.Limit {
				full++
			}
		}
		for _, f := range members {
			f.Listener.Reuseport = &event.Reuseport{Members: uint32(len(members)), Full: full}
		}
	}
}

// wanted asks the filters.
func (l *listing) wanted(f *found) bool {
	owned, _ := l.owners.Match(f.key, l.options.Watch.Owner) // names were waited for
	return owned && l.chosen.matches(&probe.Listener{Addr: f.Listener.Addr, Port: f.Listener.Port, NetNS: f.Listener.NetNS})
}

// Bounds of looking at threads, and the time between two looks.
const (
	lookedAt  = 256 // listeners with something in their queue
	lookAgain = 50 * time.Millisecond
)

// look samples the threads of those whose clients wait.
func (l *listing) look(all []*found) {
	var waiting, asleep []*found
	for _, f := range all {
		if q := f.Listener.AcceptQueue; q != nil && q.Len > 0 && len(f.Processes) > 0 && len(waiting) < lookedAt {
			waiting = append(waiting, f)
		}
	}
	once := make(map[uint32]*owner.Sample)
	for _, f := range waiting {
		if calls := l.sample(f, once); len(calls) > 0 {
			asleep = append(asleep, f)
		}
	}
	l.tellRefused(once)
	if len(asleep) == 0 {
		return
	}
	time.Sleep(lookAgain)
	clear(once)
	for _, f := range asleep {
		f.asleep = l.sample(f, once)
		for i := range f.Processes {
			for _, t := range f.Processes[i].Threads {
				if t.RanNs != nil && *t.RanNs > 0 {
					f.asleep = nil
				}
			}
		}
	}
}

// tellRefused says of how many holders it could not be seen whether they sleep.
func (l *listing) tellRefused(samples map[uint32]*owner.Sample) {
	refused := make(refusals)
	var processes []event.Process
	for pid, sample := range samples {
		if sample != nil {
			refused.files(pid, sample.Refused)
			processes = append(processes, event.Process{PID: pid})
		}
	}
	for _, g := range refused.of(processes) {
		if g.Need == diagnose.NeedCalls {
			l.say(fmt.Sprintf("connections wait; whether those sleep who should accept them could not be seen, of %s\n  that takes %s",
				countProcesses(len(g.PIDs)), strings.Join(g.By, " and ")))
		}
	}
}

// sample looks at the holders' threads, and names the calls that all of them sleep in where
// none of these can accept. A process is read once, however many listeners it has.
func (l *listing) sample(f *found, once map[uint32]*owner.Sample) (calls []string) {
	elsewhere := f.OwnersKnown
	for i := range f.Processes {
		p := &f.Processes[i]
		if i >= sampledProcesses {
			elsewhere = false
			break
		}
		sample, ok := once[p.PID]
		if !ok {
			var err error
			if sample, err = l.sampler.Sample(p.PID, p.Start, f.Listener.Inode); err != nil {
				l.log.Debug("sample threads", "pid", p.PID, "error", err)
			}
			once[p.PID] = sample
		}
		if sample == nil {
			elsewhere = false
			continue
		}
		fillSample(p, sample, f.Listener.Inode)
		in, yes := sample.Elsewhere(f.Listener.Inode)
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

func (l *listing) sort(list []event.Listing) {
	slices.SortStableFunc(list, func(a, b event.Listing) int { return compareListeners(&a.Listener, &b.Listener) })
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
		slices.SortStableFunc(list, func(a, b event.Listing) int { return cmp.Compare(firstComm(&a), firstComm(&b)) })
	}
	if more != nil {
		slices.SortStableFunc(list, func(a, b event.Listing) int { return cmp.Compare(more(&b), more(&a)) })
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

// say tells people something, once.
func (l *listing) say(line string) {
	if !l.told[line] {
		l.told[line] = true
		sayTo(l.options.Status, line)
	}
}
