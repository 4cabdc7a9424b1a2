// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

func program(name, script, title, language string) event.Process {
	return event.Process{PID: 7, Role: event.RoleAcceptor, Program: &event.Software{Name: name,
		Script: script, Title: title, Language: language}}
}

// TestBacklogPlaces: where a server takes the argument of listen() from, by its executable, its
// script, its title or its name, and by who called listen().
func TestBacklogPlaces(t *testing.T) {
	comm := func(name string, role event.Role) event.Process {
		return event.Process{PID: 7,
			Comm: name, Role: role}
	}
	acceptor, listener, holder := event.RoleAcceptor, event.RoleListener, event.RoleHolder
	named := comm("worker", acceptor)
	named.Program = &event.Software{Name: "nginx"}
	mainThread := comm("MainThread", acceptor)
	mainThread.Program = &event.Software{Name: "node", Script: "server.js"}
	service := comm("apid", acceptor)
	service.Cgroup = &event.Cgroup{Path: "/system.slice/apid.service"}
	go1 := program("api", "", "", event.LanguageGo)
	for _, tt := range []struct {
		name      string
		processes []event.Process
		want      string
	}{
		{"nginx", []event.Process{comm("nginx", acceptor)},
			"nginx.conf: listen ... backlog=511"},
		{"by executable", []event.Process{named}, "nginx.conf: listen ... backlog=511"},
		{"Node 22 calls itself MainThread", []event.Process{mainThread},
			"server.listen({port, backlog: 511})"},
		{"apache", []event.Process{program("apache2", "", "", "")}, "ListenBacklog 511"},
		{"httpd", []event.Process{comm("httpd", acceptor)}, "ListenBacklog 511"},
		{"haproxy", []event.Process{comm("haproxy", acceptor)},
			"backlog 511 in the frontend"},
		{"envoy", []event.Process{program("envoy", "", "", "")}, "tcp_backlog_size: 511"},
		{"postgres", []event.Process{program("postgres", "", "postgres", "")},
			"max_connections = 256"},
		{"mysql", []event.Process{comm("mysqld", acceptor)}, "back_log = 511"},
		{"mariadb", []event.Process{program("mariadbd", "", "", "")}, "back_log = 511"},
		{"memcached", []event.Process{comm("memcached", acceptor)}, "memcached -b 511"},
		{"lighttpd", []event.Process{comm("lighttpd", acceptor)},
			"server.listen-backlog = 511"},
		{"redis", []event.Process{comm("redis-server", acceptor)}, "tcp-backlog 511"},
		{"valkey", []event.Process{comm("valkey-server", acceptor)}, "tcp-backlog 511"},
		{"php-fpm with a version", []event.Process{program("php-fpm8.2", "", "php-fpm",
			"")}, "listen.backlog = 511"},
		{"gunicorn", []event.Process{program("python3.11", "gunicorn", "", "")},
			"gunicorn --backlog 511"},
		{"gunicorn that wrote its title", []event.Process{program("python3.11", "",
			"gunicorn", "")}, "gunicorn --backlog 511"},
		{"uwsgi", []event.Process{comm("uwsgi", acceptor)}, "uwsgi --listen 511"},
		{"puma", []event.Process{program("ruby3.1", "", "puma", "")}, "backlog=511"},
		{"Tomcat", []event.Process{program("java", "org.apache.catalina.startup.Bootstrap",
			"", "")}, "acceptCount=\"511\""},
		{"Jetty", []event.Process{program("java", "start.jar", "", "")},
			"jetty.http.acceptQueueSize=511"},
		{"any other Java", []event.Process{program("java", "shop.jar", "", "")},
			"server.tomcat.accept-count=511"},
		{"Python's own server", []event.Process{program("python3", "http.server", "", "")},
			"request_queue_size = 511"},
		{"Python", []event.Process{comm("python3", acceptor)}, "sock.listen(511)"},
		{"Go", []event.Process{go1},
			"net.core.somaxconn, which Go's net.Listen takes at the program's start (4096 now: a restart will do)"},
		{"Go by name", []event.Process{comm("traefik", acceptor)},
			"net.core.somaxconn, which Go's net.Listen takes at the program's start"},
		{"Rust", []event.Process{program("api", "", "", event.LanguageRust)},
			"TcpListener::bind"},
		{"nobody knows it", []event.Process{comm("mystery", acceptor)},
			"the program's call of listen(fd, 511)"},
		{"no process is known", nil, "the program's call of listen(fd, 511)"},
		{"systemd listens, another accepts", []event.Process{service,
			comm("systemd", holder)},
			"Backlog=511 of the .socket unit, and restart that unit (systemctl show -p TriggeredBy apid.service names it)"},
		{"and a Go program does", []event.Process{go1, comm("systemd", holder)},
			"Backlog=511 of the .socket unit"},
		{"and nginx does", []event.Process{comm("nginx", acceptor),
			comm("systemd", listener)}, "Backlog=511 of the .socket unit"},
		{"systemd keeps what nginx opened", []event.Process{comm("nginx", listener),
			comm("systemd", holder)}, "nginx.conf"},
		{"a master listens, workers accept", []event.Process{comm("mystery", acceptor),
			comm("nginx", listener)}, "nginx.conf"},
	} {
		l := tinyWindow(2)
		l.Processes = tt.processes
		// The finding may be about one that accepts alone.
		got := advice.ListenKnob(&l, tt.processes[:min(len(tt.processes), 1)], 511, "w")
		if !strings.Contains(got.Where, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got.Where, tt.want)
		}
		if strings.Contains(got.Where, "%!") || strings.Contains(got.Where,
			" listen(511)") {
			t.Errorf("%s: %q", tt.name, got.Where)
		}
	}
}

// TestServerTable: each row fills in, and no two have a name in common.
func TestServerTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, list := range [][]advice.Server{advice.PassesOn, advice.Servers, advice.Languages} {
		for _, s := range list {
			if text := s.Of(511); strings.Contains(text, "%") || strings.Contains(text,
				"listen(511)") && strings.HasPrefix(text, "listen(") {
				t.Errorf("%v: %q", s.Names, text)
			}
			for _, name := range s.Names {
				if seen[name] || !s.Is(name) {
					t.Errorf("%s is there twice, or does not go by its own name", name)
				}
				seen[name] = true
			}
		}
	}
}

func TestKnobs(t *testing.T) {
	l, host := tinyWindow(2), tinyWindow(2)
	host.HostNet = true
	pod := event.Process{Pod: &event.Pod{Namespace: "prod", Name: "api", Container: "app",
		UID: "0c1b4a6e-0000-4000-8000-000000000001"}}
	container := event.Process{Container: &event.Container{ID: strings.Repeat("ab", 32),
		Name: "web", Runtime: "docker"}}
	somaxconn := func(l *evidence.Listener) func([]event.Process) event.Knob {
		return func(p []event.Process) event.Knob {
			return advice.SysctlKnob(l, "net.core.somaxconn", nil, 511, p, "w")
		}
	}
	quota := func(cpu evidence.CPU) func([]event.Process) event.Knob {
		cpu.QuotaUs, cpu.PeriodUs = ptr(uint64(50000)), ptr(uint64(100000))
		return func(p []event.Process) event.Knob { return advice.QuotaKnob(cpu, p, "w") }
	}
	at := func(path string) evidence.CPU {
		return evidence.CPU{Cgroup: event.Cgroup{Path: path}}
	}
	v1 := evidence.CPU{Cgroup: event.Cgroup{Path: "/lab"},
		Dir: "/sys/fs/cgroup/cpu,cpuacct/lab", V1: true}
	for _, tt := range []struct {
		name string
		p    event.Process
		k    func([]event.Process) event.Knob
		want event.Knob
	}{
		{"pod's sysctl", pod, somaxconn(&l), event.Knob{Name: "net.core.somaxconn",
			Try:   "511",
			Where: "securityContext.sysctls of pod prod/api (the node must allow it)", Why: "w"}},
		{"pod in the node's network", pod, somaxconn(&host),
			event.Knob{Name: "net.core.somaxconn", Try: "511",
				Where: "/etc/sysctl.d/ and with sysctl -w, on the node: the listener is in its network namespace", Why: "w"}},
		{"pod's sysctl that any may set", pod, func(p []event.Process) event.Knob {
			return advice.SysctlKnob(&l, "net.ipv4.tcp_syncookies", ptr(uint32(0)), 1,
				p, "w")
		},
			event.Knob{Name: "net.ipv4.tcp_syncookies", Now: "0", Try: "1",
				Where: "securityContext.sysctls of pod prod/api", Why: "w"}},
		{"container's sysctl", container, somaxconn(&l),
			event.Knob{Name: "net.core.somaxconn", Try: "511",
				Where: "the container's network namespace (docker run --sysctl net.core.somaxconn=511, or sysctls: in a compose file)", Why: "w"}},
		{"process's sysctl", event.Process{PID: 7}, somaxconn(&l),
			event.Knob{Name: "net.core.somaxconn", Try: "511",
				Where: "the listener's network namespace with sysctl -w, and where that is set up (/etc/sysctl.d/ sets the node's own alone)", Why: "w"}},
		{"pod's quota", pod,
			quota(at("/kubepods.slice/kubepods-pod0c1b4a6e_0000_4000_8000_000000000001.slice/cri-containerd-x.scope")),
			event.Knob{Name: "resources.limits.cpu", Now: "0.5", Try: "1",
				Where: "the spec of pod prod/api, container app", Why: "w"}},
		{"not the pod's", pod, quota(at("/kubepods.slice")), event.Knob{Name: "CPUQuota=",
			Now: "50%", Try: "100%", Where: "unit kubepods.slice", Why: "w"}},
		{"container's quota", container, quota(at("/system.slice/docker-" +
			strings.Repeat("ab", 32) + ".scope")),
			event.Knob{Name: "--cpus", Now: "0.5", Try: "1",
				Where: "docker update --cpus=1 web, or cpus: in a compose file",
				Why:   "w"}},
		{"unit's quota", event.Process{}, quota(at("/system.slice/web.service")),
			event.Knob{Name: "CPUQuota=", Now: "50%", Try: "100%",
				Where: "unit web.service", Why: "w"}},
		{"cgroup's quota", event.Process{}, quota(at("/lab")),
			event.Knob{Name: "cpu.max", Now: "50000 100000", Try: "100000 100000",
				Where: "/sys/fs/cgroup/lab/cpu.max", Why: "w"}},
		{"version 1", event.Process{}, quota(v1),
			event.Knob{Name: "cpu.cfs_quota_us", Now: "50000", Try: "100000",
				Where: "/sys/fs/cgroup/cpu,cpuacct/lab/cpu.cfs_quota_us",
				Why:   "w"}},
		{"version 1, not known how much", event.Process{},
			func(p []event.Process) event.Knob { return advice.QuotaKnob(v1, p, "w") },
			event.Knob{Name: "cpu.cfs_quota_us", Try: "-1",
				Where: "/sys/fs/cgroup/cpu,cpuacct/lab/cpu.cfs_quota_us",
				Why:   "w"}},
		{"not known how much", event.Process{},
			func(p []event.Process) event.Knob {
				return advice.QuotaKnob(at("/lab"), p,
					"w")
			},
			event.Knob{Name: "cpu.max", Try: "max", Where: "/sys/fs/cgroup/lab/cpu.max",
				Why: "w"}},
	} {
		if got := tt.k([]event.Process{tt.p}); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
