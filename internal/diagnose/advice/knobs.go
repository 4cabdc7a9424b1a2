// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// ListenKnob is the argument of listen(), with the value to try. It is set in one place, by who
// called listen().
func ListenKnob(l *evidence.Listener, processes []event.Process, try uint32,
	why string) event.Knob {
	k := event.Knob{Name: "the backlog of listen()", Try: strconv.FormatUint(uint64(try), 10),
		Why: why,
		Where: fmt.Sprintf(
			"the program's call of listen(fd, %d), or its setting of that name", try)}
	if l.AskedBacklog != nil {
		k.Now = strconv.FormatUint(uint64(*l.AskedBacklog), 10)
	} else if limit, ok := l.Limit(); ok && l.Sysctls.Somaxconn != nil &&
		limit < *l.Sysctls.Somaxconn {
		k.Now = strconv.FormatUint(uint64(limit), 10)
	}
	// All that hold the socket, not only those that the finding is about: who listened may do
	// nothing else.
	holders := append(slices.Clone(processes), l.Processes...)
	s := backlogSetting(holders)
	if s == nil {
		return k
	}
	k.Where = s.Of(try)
	if now := l.Sysctls.Somaxconn; goProgram(s) && now != nil {
		todo := "a restart will do"
		if *now < try {
			todo = "raise it and restart the program"
		}
		k.Where += fmt.Sprintf(" (%d now: %s)", *now, todo)
	}
	if unit := activated(holders); s == systemd && unit != "" {
		k.Where += " (systemctl show -p TriggeredBy " + unit + " names it)"
	}
	return k
}

// activated names the service that accepts on a socket of systemd's, empty where that is not known.
func activated(processes []event.Process) string {
	for _, p := range processes {
		if p.Cgroup == nil || settingOf(&p) == systemd {
			continue
		}
		if unit := path.Base(p.Cgroup.Path); strings.HasSuffix(unit, ".service") &&
			evidence.Plain(unit) {
			return unit
		}
	}
	return ""
}

// SysctlKnob is a setting of the listener's network namespace.
func SysctlKnob(l *evidence.Listener, name string, now *uint32, try uint32,
	processes []event.Process, why string) event.Knob {
	k := event.Knob{Name: name, Try: strconv.FormatUint(uint64(try), 10), Why: why,
		Where: sysctlPlace(l, processes, fmt.Sprintf("%s=%d", name, try))}
	if now != nil {
		k.Now = strconv.FormatUint(uint64(*now), 10)
	}
	return k
}

// safeSysctls are those that any pod may set; the others its node must allow.
var safeSysctls = []string{"net.ipv4.tcp_syncookies", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout"}

// sysctlPlace says where "name=value" is set for the listener's network namespace.
func sysctlPlace(l *evidence.Listener, processes []event.Process, set string) string {
	for _, p := range processes {
		if l.HostNet && (p.Pod != nil || p.Container != nil) {
			return "/etc/sysctl.d/ and with sysctl -w, on the node: the listener is in its network namespace"
		}
		switch name, _, _ := strings.Cut(set, "="); {
		case p.Pod != nil && slices.Contains(safeSysctls, name):
			return fmt.Sprintf("securityContext.sysctls of pod %s",
				evidence.Said(p.Pod.Namespace+"/"+p.Pod.Name))
		case p.Pod != nil:
			return fmt.Sprintf("securityContext.sysctls of pod %s (the node must allow it)", evidence.Said(p.Pod.Namespace+"/"+p.Pod.Name))
		case p.Container != nil:
			engine := "docker"
			if p.Container.Runtime == "podman" {
				engine = "podman"
			}
			return fmt.Sprintf("the container's network namespace (%s run --sysctl %s, or sysctls: in a compose file)", engine, set)
		}
	}
	return "the listener's network namespace with sysctl -w, and where that is set up (/etc/sysctl.d/ sets the node's own alone)"
}

// QuotaKnob is the CPU limit of a cgroup; cores is the number of CPUs to try.
func QuotaKnob(cpu evidence.CPU, processes []event.Process, why string) event.Knob {
	cores := func(us uint64) string {
		return strconv.FormatFloat(float64(us)/float64(max(evidence.Value(cpu.PeriodUs),
			1)), 'f', -1, 64)
	}
	k := event.Knob{Name: "cpu.max", Try: "max", Where: File(&cpu, "cpu.max"), Why: why}
	known := cpu.QuotaUs != nil && cpu.PeriodUs != nil
	if known {
		k.Now = fmt.Sprintf("%d %d", *cpu.QuotaUs, *cpu.PeriodUs)
		k.Try = fmt.Sprintf("%d %d", *cpu.QuotaUs*2, *cpu.PeriodUs)
	}
	if cpu.V1 {
		k.Name, k.Try, k.Where = "cpu.cfs_quota_us", "-1", File(&cpu, "cpu.cfs_quota_us")
		if known {
			k.Now, k.Try = strconv.FormatUint(*cpu.QuotaUs,
				10), strconv.FormatUint(*cpu.QuotaUs*2, 10)
		}
	}
	for _, p := range processes {
		switch {
		case p.Pod != nil && isOf(&cpu, p):
			k.Name, k.Where = "resources.limits.cpu",
				fmt.Sprintf("the spec of pod %s, container %s",
					evidence.Said(p.Pod.Namespace+"/"+p.Pod.Name), evidence.Said(
						p.Pod.Container))
		case p.Container != nil && isOf(&cpu, p) && slices.Contains([]string{"docker",
			"podman"}, p.Container.Runtime):
			name := p.Container.Name
			if !evidence.Plain(name) {
				name = evidence.Word(p.Container.ID[:min(len(p.Container.ID), 12)])
			}
			k.Name, k.Where = "--cpus",
				fmt.Sprintf("%s update --cpus=N %s, or cpus: in a compose file",
					p.Container.Runtime, name)
			if known {
				k.Where = strings.Replace(k.Where, "=N", "="+cores(*cpu.QuotaUs*2),
					1)
			}
		default:
			continue
		}
		k.Try = "twice the present value, or none"
		if known {
			k.Now, k.Try = cores(*cpu.QuotaUs), cores(*cpu.QuotaUs*2)
		}
		return k
	}
	unit := path.Base(cpu.Cgroup.Path)
	if strings.HasSuffix(unit, ".service") || strings.HasSuffix(unit, ".slice") {
		k.Name, k.Where, k.Try = "CPUQuota=", "unit "+evidence.Said(unit),
			"twice the present value, or none"
		if known {
			percent := func(us uint64) string {
				return fmt.Sprintf("%d%%",
					us*100/max(*cpu.PeriodUs, 1))
			}
			k.Now, k.Try = percent(*cpu.QuotaUs), percent(*cpu.QuotaUs*2)
		}
	}
	return k
}

// File is one of the cgroup's, where it is mounted.
func File(c *evidence.CPU, name string) string {
	if c.Dir != "" {
		return evidence.Word(path.Join(c.Dir, name))
	}
	return evidence.Word("/sys/fs/cgroup" + path.Clean("/"+c.Cgroup.Path) + "/" + name)
}

// isOf reports whether the cgroup with the quota is the process's container or pod, rather than one
// that is above them.
func isOf(c *evidence.CPU, p event.Process) bool {
	at := c.Cgroup.Path
	if at == "" {
		return true
	}
	if p.Container != nil && p.Container.ID != "" && strings.Contains(at, p.Container.ID) {
		return true
	}
	return p.Pod != nil && p.Pod.UID != "" && (strings.Contains(at, p.Pod.UID) ||
		strings.Contains(at, strings.ReplaceAll(p.Pod.UID, "-", "_")))
}
