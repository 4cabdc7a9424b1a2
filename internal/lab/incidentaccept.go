// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// serve starts a server with one listener.
func (w *World) serve(comm string, l ListenConfig) (*Server, error) {
	if !l.Addr.IsValid() {
		l.Addr = any4
	}
	return w.StartServer(ServerConfig{Comm: []byte(comm), Listeners: []ListenConfig{l}})
}

// acceptIncidents are those of a process that does not accept fast enough.
func acceptIncidents() []Incident {
	return []Incident{
		{
			Name: "diagnose-blocked", Title: "the accept loop sleeps", Finding: "accept_loop_blocked",
			Explain: "A server with listen(fd, 8) sleeps 2 s in nanosleep() after each accept() while 20 clients a second come.",
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				s, err := w.serve("lab-blocked", ListenConfig{Backlog: 8, Accept: true, Pause: 2 * time.Second})
				if err != nil {
					return nil, err
				}
				log("process %d sleeps 2 s after each accept()", s.PID)
				return w.steady(server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-busy", Title: "the accept loop computes", Finding: "accept_loop_busy",
			Explain: "A server with listen(fd, 8) signs for half a second after each accept(), as TLS handshakes on the accepting thread would, while 20 clients a second come.",
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				s, err := w.serve("lab-busy", ListenConfig{Backlog: 8, Accept: true, Busy: 500 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				if err := w.favour(s.PID); err != nil {
					return nil, err
				}
				log("process %d computes for half a second after each accept()", s.PID)
				return w.steady(server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-stopped", Title: "the process is stopped", Finding: "process_stopped",
			Explain: "A server that accepts at once is stopped (SIGSTOP) while 20 clients a second come.",
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				s, err := w.serve("lab-stopped", ListenConfig{Backlog: 8, Accept: true})
				if err != nil {
					return nil, err
				}
				if err := unix.Kill(s.PID, unix.SIGSTOP); err != nil {
					return nil, fmt.Errorf("stop server %d: %w", s.PID, err)
				}
				log("process %d is stopped", s.PID)
				return w.steady(server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-no-acceptor", Title: "nobody accepts", Finding: "no_acceptor",
			Explain: "A server with listen(fd, 8) never calls accept() while 20 clients a second come.",
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				s, err := w.serve("lab-idle", ListenConfig{Backlog: 8})
				if err != nil {
					return nil, err
				}
				log("process %d only listens", s.PID)
				return w.steady(server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-reuseport", Title: "one SO_REUSEPORT member is stuck", Finding: "reuseport_imbalance", Also: []string{"no_acceptor"},
			Explain: "Of two processes that share a port by SO_REUSEPORT one accepts at once and one never, while 40 clients a second come.",
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				stuck, err := w.serve("lab-stuck", ListenConfig{Backlog: 8, ReusePort: true})
				if err != nil {
					return nil, err
				}
				well, err := w.serve("lab-well", ListenConfig{Backlog: 128, ReusePort: true, Accept: true})
				if err != nil {
					return nil, err
				}
				log("process %d accepts, process %d does not", well.PID, stuck.PID)
				return w.steady(server4, 50*time.Millisecond, 2), nil
			},
		},
	}
}
