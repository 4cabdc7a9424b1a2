// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// acceptorIncidents are those in which it takes a closer look to see who accepts, and what keeps it
// from that.
func acceptorIncidents() []Incident {
	return []Incident{
		{
			Name:    "diagnose-many-threads",
			Title:   "one of many threads accepts, and sleeps",
			Finding: "accept_loop_blocked", Names: []string{"nanosleep"},
			Explain: "A server with listen(fd, 8) and 600 idle threads sleeps 2 s in nanosleep() after each accept() while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := server.Start(w,
					server.Config{Comm: []byte("lab-threads"), Sleepers: 600,
						Listeners: []server.ListenConfig{{Addr: world.Any4,
							Backlog: 8, Accept: true, Pause: 2 * time.Second}}})
				if err != nil {
					return nil, err
				}
				log("one of the 600 threads of process %d accepts, and sleeps 2 s after each accept()", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-prefork", Title: "all workers wait, and their master idles",
			Finding: "accept_loop_blocked",
			Names:   []string{"nanosleep", "futex"},
			Explain: "Three workers that share a listener with listen(fd, 16) wait 1.5 s after each accept(), two in nanosleep() and one in futex(), while 20 clients a second come; their master has the listener open, and waits in epoll for a pipe.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-prefork",
					server.ListenConfig{Backlog: 16, Workers: 3,
						Pause: 1500 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				log("process %d has a master and three workers, which wait 1.5 s after each accept()", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-goroutine", Title: "a goroutine accepts, and sleeps",
			Finding: "accept_loop_blocked", Names: []string{"standstills"},
			Explain: "A server in Go with listen(fd, 8) sleeps 1.5 s in time.Sleep() after each Accept() while 20 clients a second come: no thread sleeps with it.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-goroutine",
					server.ListenConfig{Backlog: 8, Goroutine: true,
						Pause: 1500 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				log("a goroutine of process %d accepts, and sleeps 1.5 s after each", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-descriptors", Title: "the process has no descriptor left",
			Finding: "accept_loop_blocked",
			Names:   []string{"EMFILE", "RLIMIT_NOFILE"},
			Explain: "A server with listen(fd, 8) may have 10 descriptors more than it has, keeps its connections open, and tries again every 20 ms when accept() fails with EMFILE, while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return outOfDescriptors(w, 20*time.Millisecond, log)
			},
		},
		{
			Name:    "diagnose-descriptors-spin",
			Title:   "the same, and it tries again at once",
			Finding: "accept_loop_busy",
			Names:   []string{"EMFILE", "RLIMIT_NOFILE"},
			Explain: "The same server tries again at once.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return outOfDescriptors(w, 0, log)
			},
		},
		{
			Name:    "diagnose-epoll-burst",
			Title:   "bursts of a moment meet the small queue of an event loop",
			Finding: "backlog_too_small", Names: []string{"128"},
			Explain: "An event loop with listen(fd, 8) accepts at once whatever comes; 80 clients come together every other second.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-epoll",
					server.ListenConfig{Backlog: 8, Poll: true})
				if err != nil {
					return nil, err
				}
				log("process %d called listen(fd, 8), and waits in epoll", s.PID)
				return steady(w, world.Server4, 2*time.Second, 80), nil
			},
		},
		{
			Name: "diagnose-frozen", Title: "the cgroup is frozen",
			Finding: "process_stopped", Names: []string{"synspy-lab-freezer"},
			Explain: "A server that accepts at once is frozen with its cgroup (cgroup.freeze) while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return frozenServer(w, true, log)
			},
		},
		{
			Name: "diagnose-frozen-v1", Title: "the cgroup of version 1 is frozen",
			Finding: "process_stopped", Names: []string{"synspy-lab-freezer"},
			Explain: "The same by the freezer of cgroup version 1, as docker pause does there.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return frozenServer(w, false, log)
			},
		},
	}
}

func outOfDescriptors(w *world.World, pause time.Duration, log func(string, ...any)) (traffic,
	error) {
	s, err := serve(w, "lab-files", server.ListenConfig{Backlog: 8, Files: 10, Pause: pause})
	if err != nil {
		return nil, err
	}
	if err := w.Favour(s.PID); err != nil {
		return nil, err
	}
	log("process %d may have 10 descriptors more", s.PID)
	return steady(w, world.Server4, 50*time.Millisecond, 1), nil
}

func frozenServer(w *world.World, second bool, log func(string, ...any)) (traffic, error) {
	s, err := serve(w, "lab-frozen", server.ListenConfig{Backlog: 8, Accept: true})
	if err != nil {
		return nil, err
	}
	if err := w.Freeze(s.PID, second); err != nil {
		return nil, err
	}
	log("process %d is frozen with its cgroup", s.PID)
	return steady(w, world.Server4, 50*time.Millisecond, 1), nil
}
