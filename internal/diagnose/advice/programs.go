// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// Server is where a server takes the argument of listen() from. Its names are those of executables,
// scripts and processes; one that stands without a version is meant in all versions.
type Server struct {
	Names []string
	where string // with the value to try, if it has a %d
	half  bool   // it makes twice the number that is set
}

// systemd listens for the services of its .socket units.
var systemd = &PassesOn[0]

// PassesOn are those that listen for others: who accepts has no say.
var PassesOn = []Server{
	{[]string{"systemd"}, "Backlog=%d of the .socket unit, and restart that unit", false},
	{[]string{"circusd"}, "circus.ini: backlog = %d of the [socket:...]", false},
	{[]string{"supervisord"}, "supervisord.conf: socket_backlog=%d of the [fcgi-program:...]",
		false},
	{[]string{"tcpserver"}, "tcpserver -b %d", false},
}

// Servers are told by name.
var Servers = []Server{
	{[]string{"nginx", "nginx-debug", "openresty", "angie", "tengine"},
		"nginx.conf: listen ... backlog=%d", false},
	{[]string{"haproxy"}, "haproxy.cfg: backlog %d in the frontend", false},
	{[]string{"envoy"}, "the listener's tcp_backlog_size: %d", false},
	{[]string{"apache2", "httpd", "httpd-prefork"}, "ListenBacklog %d", false},
	{[]string{"lighttpd"}, "lighttpd.conf: server.listen-backlog = %d", false},
	{[]string{"varnishd"}, "varnishd -p listen_depth=%d", false},
	{[]string{"traffic_server"}, "records.yaml: proxy.config.net.listen_backlog: %d", false},
	{[]string{"redis-server", "valkey-server", "keydb-server", "redis-sentinel"},
		"redis.conf: tcp-backlog %d", false},
	{[]string{"memcached"}, "memcached -b %d", false},
	{[]string{"postgres", "postmaster"},
		"postgresql.conf: max_connections = %d (the backlog is twice that, and more for its own processes)", true},
	{[]string{"pgbouncer"}, "pgbouncer.ini: listen_backlog = %d", false},
	{[]string{"mysqld", "mariadbd"}, "my.cnf: back_log = %d", false},
	{[]string{"mongod", "mongos"},
		"mongod.conf: net.listenBacklog: %d (in the versions that have it)", false},
	{[]string{"beam.smp"},
		"the Erlang listener's option {backlog, %d} (rabbitmq.conf: tcp_listen_options.backlog = %[1]d)", false},
	{[]string{"named"}, "named.conf: tcp-listen-queue %d", false},
	{[]string{"exim", "exim4"}, "exim.conf: smtp_connect_backlog = %d", false},
	{[]string{"sshd"},
		"sshd's source: its backlog is 128 whatever is set; MaxStartups lets more log in at once", false},
	{[]string{"php-fpm"}, "the pool's listen.backlog = %d", false},
	{[]string{"gunicorn"}, "gunicorn --backlog %d", false},
	{[]string{"uvicorn"}, "uvicorn --backlog %d", false},
	{[]string{"hypercorn"}, "hypercorn --backlog %d", false},
	{[]string{"granian"}, "granian --backlog %d", false},
	{[]string{"waitress-serve"}, "waitress-serve --backlog=%d", false},
	{[]string{"uwsgi"}, "uwsgi --listen %d", false},
	{[]string{"http.server", "socketserver", "wsgiref.simple_server"},
		"the Python server class: request_queue_size = %d", false},
	{[]string{"puma"}, "puma.rb: bind 'tcp://...?backlog=%d'", false},
	{[]string{"unicorn"}, "unicorn.rb: listen ..., backlog: %d", false},
	{[]string{"thin", "rackup"}, "the Ruby server: server.listen(%d)", false},
	{[]string{"PassengerAgent", "passenger"},
		"Passenger's socket backlog: passenger_socket_backlog %d", false},
	{[]string{"org.apache.catalina.startup.Bootstrap"},
		"Tomcat's server.xml: acceptCount=\"%d\" of the Connector", false},
	{[]string{"start.jar", "org.eclipse.jetty.start.Main"},
		"Jetty's acceptQueueSize (start.d/http.ini: jetty.http.acceptQueueSize=%d)", false},
	{[]string{"kafka.Kafka"}, "Kafka's server.properties: socket.listen.backlog.size=%d",
		false},
	{[]string{"org.apache.zookeeper.server.quorum.QuorumPeerMain"},
		"zoo.cfg: clientPortListenBacklog=%d", false},
}

// Languages are what is said of programs that nobody knows by name: of scripts by their
// interpreter, of compiled ones by [event.Software].Language.
var Languages = []Server{
	{[]string{"node", "nodejs"}, "the program: server.listen({port, backlog: %d})", false},
	{[]string{"bun", "deno"}, "the program: listen({port, backlog: %d}), as node:net has it",
		false},
	{[]string{"java"},
		"the Java server: Tomcat acceptCount (Spring Boot: server.tomcat.accept-count=%d), Jetty acceptQueueSize, Netty SO_BACKLOG, new ServerSocket(port, %[1]d)", false},
	{[]string{"python", "pypy"},
		"the Python program: sock.listen(%d), asyncio's backlog=%[1]d, or socketserver's request_queue_size = %[1]d", false},
	{[]string{"ruby"}, "the Ruby program: server.listen(%d)", false},
	{[]string{"perl"}, "the Perl program: Listen => %d of IO::Socket", false},
	{[]string{"php"},
		"the PHP program: the option socket => backlog => %d of stream_context_create()",
		false},
	{[]string{"dotnet"}, "the .NET program: options.Backlog = %d of Kestrel's socket transport",
		false},
	{[]string{event.LanguageGo},
		"net.core.somaxconn, which Go's net.Listen takes at the program's start", false},
	{[]string{event.LanguageRust},
		"the Rust program: TcpListener::bind has a fixed backlog (128 in std, 128 or 1,024 in tokio); make the socket by socket2 or tokio's TcpSocket, with socket.listen(%d)", false},
}

// goPrograms are those that are known to be Go where the executable could not be read.
var goPrograms = []string{"caddy", "traefik", "docker-proxy", "dockerd", "containerd", "kubelet",
	"kube-apiserver", "kube-proxy", "etcd", "coredns",
	"prometheus", "grafana", "grafana-server", "consul", "vault", "nomad", "minio", "cloudflared", "influxd", "nats-server", "telegraf", "gitea"}

// namesOf are what a process may be known by: what its interpreter runs first.
func namesOf(p *event.Process) (own []string, language string) {
	if p.Program != nil {
		own = append(own, p.Program.Script, p.Program.Title, p.Program.Name)
		language = p.Program.Language
	}
	own = append(own, p.Comm)
	own = slices.DeleteFunc(own, func(s string) bool { return s == "" })
	if slices.ContainsFunc(own, func(s string) bool {
		return slices.Contains(goPrograms,
			s)
	}) && language == "" {
		language = event.LanguageGo
	}
	return own, language
}

// commLength is how much of a name the kernel keeps.
const commLength = 15

// Is reports whether a server goes by that name: whole, without its version, or as far as the
// kernel keeps it.
func (s Server) Is(name string) bool {
	bare := strings.TrimRight(name, "0123456789.-")
	return slices.ContainsFunc(s.Names, func(known string) bool {
		return name == known || bare == known || len(name) == commLength &&
			strings.HasPrefix(known, name)
	})
}

func find(list []Server, names ...string) *Server {
	for _, name := range names {
		for i := range list {
			if list[i].Is(name) {
				return &list[i]
			}
		}
	}
	return nil
}

// backlogSetting finds where the argument of listen() is set for processes that hold a listener,
// nil for unknown. Who called listen() has the word, then who listens for others, then who accepts.
func backlogSetting(processes []event.Process) *Server {
	order := []func(*event.Process) bool{
		func(p *event.Process) bool { return p.Role == event.RoleListener },
		func(p *event.Process) bool {
			names, _ := namesOf(p)
			return find(PassesOn,
				names...) != nil
		},
		func(p *event.Process) bool { return p.Role == event.RoleAcceptor },
		func(*event.Process) bool { return true },
	}
	for _, ranks := range order {
		for i := range processes {
			p := &processes[i]
			if !ranks(p) {
				continue
			}
			if s := settingOf(p); s != nil {
				return s
			}
		}
	}
	return nil
}

// goProgram is the row of programs in Go.
func goProgram(s *Server) bool { return slices.Contains(s.Names, event.LanguageGo) }

func settingOf(p *event.Process) *Server {
	names, language := namesOf(p)
	if s := find(PassesOn, names...); s != nil {
		return s
	}
	if s := find(Servers, names...); s != nil {
		return s
	}
	if s := find(Languages, language); s != nil && language != "" {
		return s
	}
	return find(Languages, names...)
}

// Of names the setting, as far as it is known.
func (s *Server) Of(try uint32) string {
	if !strings.Contains(s.where, "%") {
		return s.where
	}
	if s.half {
		try = (try + 1) / 2
	}
	return fmt.Sprintf(s.where, try)
}
