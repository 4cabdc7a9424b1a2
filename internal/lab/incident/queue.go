// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"errors"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// queueIncidents are those of queues that are too small for what comes.
func queueIncidents() []Incident {
	return []Incident{
		{
			Name: "diagnose-burst", Title: "clients come all at once",
			Finding: "connection_burst",
			Explain: "A server with listen(fd, 128) takes 4 ms a client, which is enough for the 20 a second that come; after a second and a half 400 come at once, as after a restart.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-burst",
					server.ListenConfig{Backlog: 128, Accept: true,
						Busy: 4 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				if err := w.Favour(s.PID); err != nil {
					return nil, err
				}
				log("process %d can take 250 clients a second", s.PID)
				return func(ctx context.Context) error {
					usual, cancel := context.WithTimeout(ctx,
						1500*time.Millisecond)
					defer cancel()
					if err := steady(w, world.Server4, 50*time.Millisecond,
						1)(usual); err != nil || ctx.Err() != nil {
						return err
					}
					c := &crowd{w: w, server: world.Server4}
					for range 20 { // the accept queue is to be met, not the SYN queue
						if err := errors.Join(c.come(20),
							c.proceed()); err != nil {
							return err
						}
					}
					return c.steady(50*time.Millisecond, 1)(ctx)
				}, nil
			},
		},
		{
			Name: "diagnose-tiny-backlog", Title: "a tiny backlog",
			Finding: "backlog_too_small",
			Explain: "A server with listen(fd, 1) takes 4 ms a client; 10 clients come together twice a second.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-tiny",
					server.ListenConfig{Backlog: 1, Accept: true,
						Busy: 4 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				if err := w.Favour(s.PID); err != nil {
					return nil, err
				}
				log("process %d called listen(fd, 1)", s.PID)
				return steady(w, world.Server4, 500*time.Millisecond, 10), nil
			},
		},
		{
			Name: "diagnose-capped-backlog", Title: "a backlog that somaxconn cut",
			Finding: "backlog_capped",
			Explain: "A server calls listen(fd, 4096) where net.core.somaxconn is 8, and takes 4 ms a client; 30 clients come together twice a second.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctl("net.core.somaxconn", "8"); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					// listen() is to be seen: what it asks for is visible only
					// then.
					s, err := serve(w, "lab-capped",
						server.ListenConfig{Backlog: 4096, Accept: true,
							Busy: 4 * time.Millisecond})
					if err != nil {
						return err
					}
					if err := w.Favour(s.PID); err != nil {
						return err
					}
					log("process %d called listen(fd, 4096), somaxconn is 8",
						s.PID)
					return steady(w, world.Server4, 500*time.Millisecond,
						30)(ctx)
				}, nil
			},
		},
		{
			Name:    "diagnose-syn-flood-cookies",
			Title:   "a SYN flood, answered by cookies",
			Finding: "syn_queue_pressure",
			Explain: "Half-open handshakes of 400 clients a second that never answer, beside 20 that do, fill the SYN queue of listen(fd, 64); SYN cookies answer the rest, and nothing is dropped.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return synFlood(w, "1", log)
			},
		},
		{
			Name: "diagnose-syn-flood", Title: "the same without cookies",
			Finding: "syncookies_disabled",
			Explain: "With tcp_syncookies=0 the SYNs that find the SYN queue full are dropped.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return synFlood(w, "0", log)
			},
		},
	}
}

// synFlood sends SYNs whose answers nobody reads to a server that accepts at once.
func synFlood(w *world.World, cookies string, log func(string, ...any)) (traffic, error) {
	if err := w.Sysctl("net.ipv4.tcp_syncookies", cookies); err != nil {
		return nil, err
	}
	s, err := serve(w, "lab-flooded", server.ListenConfig{Backlog: 64, Accept: true})
	if err != nil {
		return nil, err
	}
	log("process %d accepts at once; tcp_syncookies=%s", s.PID, cookies)
	return func(ctx context.Context) error {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		real := &crowd{w: w, server: world.Server4}
		for {
			if err := errors.Join(real.come(1), real.proceed()); err != nil {
				return err
			}
			if err := w.Inject(w.SYNFrames(world.Server4, 20)); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	}, nil
}
