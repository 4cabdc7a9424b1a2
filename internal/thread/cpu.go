// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/kernel/proc"
)

// maxLevels is how far up a quota is looked for.
const maxLevels = 16

// membershipsOf lists the cgroups of the process; none where they are not known.
func membershipsOf(dir int) []cgroup.Membership {
	text, err := proc.ReadAt(dir, proc.LiveThread(dir)+"cgroup")
	if err != nil {
		return nil
	}
	return cgroup.ParseMemberships(text)
}

// cpuOf reads what a process's cgroup may use of the CPUs, and what it was
// denied; nil where nothing is known.
func (s *Sampler) cpuOf(groups []cgroup.Membership, now time.Time) *event.CPU {
	var cpu event.CPU
	var key string
	for _, m := range groups {
		isV2 := m.Controllers[0] == cgroup.V2
		if m.Deleted || !isV2 && !slices.Contains(m.Controllers, "cpu") {
			continue
		}
		path, at := s.proc.Mounts.Locate(m)
		if at == "" {
			continue
		}
		if isV2 {
			cpu.Pressure = pressureOf(at)
		}
		if key == "" {
			key = at
		}
		for range maxLevels {
			if cpu.QuotaUs == nil && quotaOf(at, isV2, &cpu) {
				cpu.Cgroup, key = path, at
				cpu.Dir, cpu.V1 = at, !isV2
			}
			if path == "/" || cpu.QuotaUs != nil {
				break
			}
			path, at = filepath.Dir(path), filepath.Dir(at)
		}
	}
	if cpu == (event.CPU{}) {
		return nil
	}
	s.since(key, &cpu, now)
	return &cpu
}

// quotaOf reads a cgroup's quota and how often it ran out; false where it has none.
func quotaOf(dir string, isV2 bool, cpu *event.CPU) bool {
	var quota, period *uint64
	if isV2 {
		f := strings.Fields(readText(dir, "cpu.max")) // "max 100000" or "20000 100000"
		if len(f) != 2 {
			return false
		}
		quota, period = parseNumber(f[0]), parseNumber(f[1])
	} else {
		// -1 for none
		quota, period = parseNumber(readText(dir,
			"cpu.cfs_quota_us")), parseNumber(readText(dir, "cpu.cfs_period_us"))
	}
	if quota == nil || period == nil {
		return false
	}
	cpu.QuotaUs, cpu.PeriodUs = quota, period
	parseCPUStat(readText(dir, "cpu.stat"), cpu)
	return true
}

// parseCPUStat reads cpu.stat of v1, with throttled_time in nanoseconds, and of v2,
// with throttled_usec.
func parseCPUStat(text string, cpu *event.CPU) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n := parseNumber(value)
		if n == nil {
			continue
		}
		switch name {
		case "nr_periods":
			cpu.Periods = n
		case "nr_throttled":
			cpu.Throttled = n
		case "throttled_time":
			cpu.ThrottledNs = n
		case "throttled_usec":
			cpu.ThrottledNs = number(*n * 1000)
		}
	}
}

// pressureOf reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=309374606".
func pressureOf(dir string) *event.Pressure {
	var p event.Pressure
	for line := range strings.Lines(readText(dir, "cpu.pressure")) {
		kind, _, _ := strings.Cut(line, " ")
		_, total, _ := strings.Cut(strings.TrimSpace(line), "total=")
		switch kind {
		case "some":
			p.SomeUs = parseNumber(total)
		case "full":
			p.FullUs = parseNumber(total)
		}
	}
	if p == (event.Pressure{}) {
		return nil
	}
	return &p
}

// since fills in what moved since the cgroup was last looked at. A second listener's
// process in it is soon enough after the first to say the same.
func (s *Sampler) since(key string, cpu *event.CPU, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.cpus[key]
	if known && now.Sub(before.at) < minWindow {
		cpu.DuringMs, cpu.PeriodsDuring = before.cpu.DuringMs, before.cpu.PeriodsDuring
		cpu.ThrottledDuring, cpu.ThrottledNsDuring = before.cpu.ThrottledDuring,
			before.cpu.ThrottledNsDuring
		return
	}
	if known && before.cpu.Cgroup == cpu.Cgroup {
		cpu.DuringMs = milliseconds(now.Sub(before.at))
		cpu.PeriodsDuring = difference(cpu.Periods, before.cpu.Periods)
		cpu.ThrottledDuring = difference(cpu.Throttled, before.cpu.Throttled)
		cpu.ThrottledNsDuring = difference(cpu.ThrottledNs, before.cpu.ThrottledNs)
		if p, was := cpu.Pressure, before.cpu.Pressure; p != nil && was != nil {
			p.SomeUsDuring, p.FullUsDuring = difference(p.SomeUs,
				was.SomeUs), difference(p.FullUs, was.FullUs)
		}
	}
	s.cpus[key] = cpuBefore{now, *cpu}
}

// minWindow is the shortest time that says something about a quota.
const minWindow = 100 * time.Millisecond

func difference(now, before *uint64) *uint64 {
	if now == nil || before == nil || *now < *before {
		return nil
	}
	return number(*now - *before)
}

func readText(dir, name string) string {
	text, err := proc.ReadAt(unix.AT_FDCWD, filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func parseNumber(text string) *uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}
