// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// acceptIncidents are those of a process that does not accept fast enough.
func acceptIncidents() []Incident {
	return []Incident{
		{
			Name: "diagnose-blocked", Title: "the accept loop sleeps",
			Finding: "accept_loop_blocked",
			Explain: "A server with listen(fd, 8) sleeps 2 s in nanosleep() after each accept() while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-blocked",
					server.ListenConfig{Backlog: 8, Accept: true,
						Pause: 2 * time.Second})
				if err != nil {
					return nil, err
				}
				log("process %d sleeps 2 s after each accept()", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-busy", Title: "the accept loop computes",
			Finding: "accept_loop_busy",
			Explain: "A server with listen(fd, 8) signs for half a second after each accept(), as TLS handshakes on the accepting thread would, while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-busy",
					server.ListenConfig{Backlog: 8, Accept: true,
						Busy: 500 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				if err := w.Favour(s.PID); err != nil {
					return nil, err
				}
				log("process %d computes for half a second after each accept()",
					s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-stopped", Title: "the process is stopped",
			Finding: "process_stopped",
			Explain: "A server that accepts at once is stopped (SIGSTOP) while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-stopped",
					server.ListenConfig{Backlog: 8, Accept: true})
				if err != nil {
					return nil, err
				}
				if err := unix.Kill(s.PID, unix.SIGSTOP); err != nil {
					return nil, fmt.Errorf("stop server %d: %w", s.PID, err)
				}
				log("process %d is stopped", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-no-acceptor", Title: "nobody accepts",
			Finding: "no_acceptor",
			Explain: "A server with listen(fd, 8) never calls accept() while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-idle", server.ListenConfig{Backlog: 8})
				if err != nil {
					return nil, err
				}
				log("process %d only listens", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-reuseport", Title: "one SO_REUSEPORT member is stuck",
			Finding: "reuseport_imbalance", Also: []string{"no_acceptor"},
			Explain: "Of two processes that share a port by SO_REUSEPORT one accepts at once and one never, while 40 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				stuck, err := serve(w, "lab-stuck",
					server.ListenConfig{Backlog: 8, ReusePort: true})
				if err != nil {
					return nil, err
				}
				well, err := serve(w, "lab-well",
					server.ListenConfig{Backlog: 128, ReusePort: true,
						Accept: true})
				if err != nil {
					return nil, err
				}
				log("process %d accepts, process %d does not", well.PID, stuck.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 2), nil
			},
		},
	}
}
