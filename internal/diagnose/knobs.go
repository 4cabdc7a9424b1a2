package diagnose

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// backlogSettings says where common servers take the argument of listen() from, by the name of the process.
var backlogSettings = []struct{ comm, where string }{
	{"nginx", "nginx.conf: listen ... backlog=%d"},
	{"haproxy", "haproxy.cfg: backlog %d in the frontend"},
	{"envoy", "the listener's tcp_backlog_size: %d"},
	{"apache2", "ListenBacklog %d"},
	{"httpd", "ListenBacklog %d"},
	{"redis-server", "redis.conf: tcp-backlog %d"},
	{"php-fpm", "the pool's listen.backlog = %d"},
	{"gunicorn", "gunicorn --backlog %d"},
	{"uvicorn", "uvicorn --backlog %d"},
	{"uwsgi", "uwsgi --listen %d"},
	{"node", "server.listen({backlog: %d})"},
	{"java", "the server's acceptCount or backlog: %d"},
	{"systemd", "Backlog=%d of the .socket unit"},
	{"python", "the program's call of listen(%d)"},
}

// listenKnob is the argument of listen(), with the value to try.
func listenKnob(l *Listener, processes []event.Process, try uint32, why string) event.Knob {
	k := event.Knob{Name: "the backlog of listen()", Try: strconv.FormatUint(uint64(try), 10), Why: why,
		Where: fmt.Sprintf("the program's call of listen(fd, %d), or its setting of that name", try)}
	if l.AskedBacklog != nil {
		k.Now = strconv.FormatUint(uint64(*l.AskedBacklog), 10)
	} else if limit, ok := l.limit(); ok && l.Sysctls.Somaxconn != nil && limit < *l.Sysctls.Somaxconn {
		k.Now = strconv.FormatUint(uint64(limit), 10)
	}
	for _, p := range processes {
		for _, s := range backlogSettings {
			if strings.HasPrefix(p.Comm, s.comm) {
				k.Where = fmt.Sprintf(s.where, try)
				return k
			}
		}
	}
	return k
}

// sysctlKnob is a setting of the listener's network namespace.
func sysctlKnob(name string, now *uint32, try uint32, processes []event.Process, why string) event.Knob {
	k := event.Knob{Name: name, Try: strconv.FormatUint(uint64(try), 10), Why: why, Where: sysctlPlace(processes)}
	if now != nil {
		k.Now = strconv.FormatUint(uint64(*now), 10)
	}
	return k
}

func sysctlPlace(processes []event.Process) string {
	for _, p := range processes {
		switch {
		case p.Pod != nil:
			return fmt.Sprintf("securityContext.sysctls of pod %s/%s (the node must allow it)", p.Pod.Namespace, p.Pod.Name)
		case p.Container != nil:
			return "the container's network namespace (--sysctl, or sysctls: in a compose file)"
		}
	}
	return "/etc/sysctl.d/ and with sysctl -w, in the listener's network namespace"
}

// quotaKnob is the CPU limit of a cgroup; cores is the number of CPUs to try.
func quotaKnob(cpu CPU, processes []event.Process, why string) event.Knob {
	cores := func(us uint64) string {
		return strconv.FormatFloat(float64(us)/float64(max(value(cpu.PeriodUs), 1)), 'f', -1, 64)
	}
	k := event.Knob{Name: "cpu.max", Try: "max", Where: "/sys/fs/cgroup" + path.Clean("/"+cpu.Cgroup.Path) + "/cpu.max", Why: why}
	known := cpu.QuotaUs != nil && cpu.PeriodUs != nil
	if known {
		k.Now = fmt.Sprintf("%d %d", *cpu.QuotaUs, *cpu.PeriodUs)
		k.Try = fmt.Sprintf("%d %d", *cpu.QuotaUs*2, *cpu.PeriodUs)
	}
	for _, p := range processes {
		if p.Pod != nil {
			k.Name, k.Where = "resources.limits.cpu", fmt.Sprintf("the spec of pod %s/%s, container %s", p.Pod.Namespace, p.Pod.Name, p.Pod.Container)
			k.Try = "twice the present value, or none"
			if known {
				k.Now, k.Try = cores(*cpu.QuotaUs), cores(*cpu.QuotaUs*2)
			}
			return k
		}
	}
	unit := path.Base(cpu.Cgroup.Path)
	if strings.HasSuffix(unit, ".service") || strings.HasSuffix(unit, ".slice") {
		k.Name, k.Where, k.Try = "CPUQuota=", "unit "+unit, "twice the present value, or none"
		if known {
			percent := func(us uint64) string { return fmt.Sprintf("%d%%", us*100/max(*cpu.PeriodUs, 1)) }
			k.Now, k.Try = percent(*cpu.QuotaUs), percent(*cpu.QuotaUs*2)
		}
	}
	return k
}
