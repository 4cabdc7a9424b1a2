// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
)

// Selection is the filters as the user wrote them.
type Selection struct {
	Ports   []string // 443, 8000-8010
	Addrs   []string // CIDR or address, of the server
	Clients []string
	NetNS   string
	Causes  []string
	Stages  []string
	PID     int
	Comm    string
	Cgroup  string

	Container string // ID, the first digits of one, or name
	Pod       string // NAMESPACE/NAME, or NAME
}

// Apply reads the filters into a watch. Errors wrap ErrUsage and say what would
// have been right.
func (s Selection) Apply(w *Watch) error {
	var err error
	if w.Filter.Ports, err = parsePorts(s.Ports); err != nil {
		return err
	}
	if w.Filter.Servers, err = parsePrefixes("--addr", s.Addrs); err != nil {
		return err
	}
	if w.Filter.Clients, err = parsePrefixes("--client", s.Clients); err != nil {
		return err
	}
	for _, name := range s.Causes {
		cause, ok := event.ParseCause(name)
		if !ok {
			if slices.ContainsFunc(event.Findings(),
				func(f event.FindingInfo) bool { return string(f.ID) == name }) {
				return cli.Usage("--cause %q is a finding of diagnose: what it finds is not known of a packet", name)
			}
			return unknownName("cause", name, "cause", CauseNames())
		}
		w.Filter.Causes = append(w.Filter.Causes, cause)
	}
	for _, name := range s.Stages {
		stage, ok := event.ParseStage(name)
		if !ok {
			return unknownName("stage", name, "stage", event.StageNames())
		}
		w.Filter.Stages = append(w.Filter.Stages, stage)
	}
	if err := s.applyOwner(w); err != nil {
		return err
	}
	if err := Contradiction(&w.Filter, w.Owner); err != nil {
		return err
	}
	return s.applyNetNS(w)
}

// applyNetNS comes last: without privileges it cannot always report whether there
// is such a namespace, and usage errors come before that.
func (s Selection) applyNetNS(w *Watch) (err error) {
	if s.NetNS == "" {
		return nil
	}
	w.Filter.NetNS, err = FindNetNS(s.NetNS)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: --netns: %w", cli.ErrUnable, err)
	}
	return err
}

// FindNetNS reads a --netns. Where it may not look it returns fs.ErrPermission;
// other errors are usage errors.
func FindNetNS(arg string) (uint64, error) {
	inode, err := kernel.FindNetNS(arg)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return 0, cli.Usage("--netns: %w", err)
	}
	return inode, err
}

func (s Selection) applyOwner(w *Watch) error {
	if s.PID < 0 || s.PID > MostPID {
		return cli.Usage("--pid %d is no process ID", s.PID)
	}
	if s.PID > 0 {
		if _, err := os.Stat("/proc/" + strconv.Itoa(s.PID)); err != nil {
			if by := kernel.HiddenProcess(uint32(s.PID)); len(by) > 0 {
				return fmt.Errorf("%w: --pid %d: this process takes %s",
					cli.ErrUnable, s.PID, strings.Join(by, " and "))
			}
			return cli.Usage("--pid %d: no such process", s.PID)
		}
	}
	w.Owner = owner.Filter{PID: uint32(s.PID), Comm: s.Comm, Cgroup: s.Cgroup,
		Container: s.Container, Pod: s.Pod}
	if err := (owner.Filter{Comm: s.Comm}).Validate(); err != nil {
		return cli.Usage("--comm: %w", err)
	}
	if len(s.Comm) > commLength && !owner.IsGlob(s.Comm) {
		return cli.Usage("--comm %q: the kernel keeps %d bytes of a name: %q", s.Comm,
			commLength, s.Comm[:commLength])
	}
	if err := (owner.Filter{Cgroup: s.Cgroup}).Validate(); err != nil {
		return cli.Usage("--cgroup: %w", err)
	}
	if err := (owner.Filter{Container: s.Container}).Validate(); err != nil {
		return cli.Usage("--container: %w", err)
	}
	if err := (owner.Filter{Pod: s.Pod}).Validate(); err != nil {
		return cli.Usage("--pod %q: %w", s.Pod, err)
	}
	if s.Cgroup != "" && !owner.IsGlob(s.Cgroup) {
		if _, err := owner.New("/proc", nil).FindCgroup(s.Cgroup); err != nil {
			return cli.Usage("--cgroup %q: no such cgroup", s.Cgroup)
		}
	}
	return nil
}

// MostPID is PID_MAX_LIMIT: no process has a higher number, and some of those would be cut to that
// of another.
const MostPID = 1 << 22

// commLength is TASK_COMM_LEN less the NUL: a longer name never matches.
const commLength = 15

// CauseNames lists the names that --cause takes.
func CauseNames() []string {
	var names []string
	for _, cause := range event.Causes() {
		names = append(names, cause.Name)
	}
	return names
}

// CauseTitles lists the same with what they mean, behind a tab, as shells take it.
func CauseTitles() []string {
	var titles []string
	for _, cause := range event.Causes() {
		titles = append(titles, cause.Name+"\t"+cause.Title)
	}
	return titles
}

func parsePorts(args []string) ([]load.PortRange, error) {
	var ranges []load.PortRange
	for _, arg := range args {
		low, high, isRange := strings.Cut(arg, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 16)
		last, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || first == 0 || first > last {
			return nil, cli.Usage("--port %q: want a port from 1 to 65535, or a range like 8000-8010", arg)
		}
		ranges = append(ranges, load.PortRange{Low: uint16(first), High: uint16(last)})
	}
	if len(ranges) > load.MaxPortRanges {
		return nil, cli.Usage("--port: at most %d ports and ranges", load.MaxPortRanges)
	}
	return ranges, nil
}

func parsePrefixes(flag string, args []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, arg := range args {
		prefix, err := netip.ParsePrefix(arg)
		if err != nil {
			addr, err := netip.ParseAddr(arg)
			if err != nil || addr.Zone() != "" {
				return nil, cli.Usage("%s %q: want an address or a network like 10.0.0.0/8", flag, arg)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		prefixes = append(prefixes, prefix)
	}
	if len(prefixes) > load.MaxPrefixes {
		return nil, cli.Usage("%s: at most %d networks", flag, load.MaxPrefixes)
	}
	return prefixes, nil
}

// checkBackend refuses a backend that does not exist.
func checkBackend(name string) error {
	if !slices.Contains(facts.Backends(), name) {
		return cli.Usage("--backend %q: want one of %s", name,
			strings.Join(facts.Backends(), ", "))
	}
	return nil
}

// Validate finds usage errors that need no privileges to be found.
func (w Watch) Validate() error {
	if err := checkBackend(w.Backend); err != nil {
		return err
	}
	if err := load.CheckRingSize(w.RingSize); err != nil {
		return cli.Usage("--ring-size: %w", err)
	}
	if w.BTF != "" {
		if err := facts.CheckBTF(w.BTF); err != nil {
			return cli.Usage("--btf: %w", err)
		}
	}
	return nil
}
