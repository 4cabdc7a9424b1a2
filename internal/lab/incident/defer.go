// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// deferIncidents are those of listeners with TCP_DEFER_ACCEPT, which ignores ACKs until data comes.
func deferIncidents() []Incident {
	const every = 50 * time.Millisecond
	deferring := func(w *world.World, log func(string, ...any), backlog int) error {
		s, err := serve(w, "lab-deferring",
			server.ListenConfig{Backlog: backlog, Accept: true,
				Options: []server.SocketOption{server.IntOption(unix.IPPROTO_TCP,
					unix.TCP_DEFER_ACCEPT, 30)}})
		if err == nil {
			log("process %d accepts at once, with TCP_DEFER_ACCEPT", s.PID)
		}
		return err
	}
	return []Incident{
		{
			Name:    "diagnose-defer-server-first",
			Title:   "TCP_DEFER_ACCEPT where the server speaks first",
			Finding: "other_drops",
			Names:   []string{"defer_accept", "held back until"},
			Explain: "20 clients a second connect and wait for a greeting; the listener has TCP_DEFER_ACCEPT, and waits for them to send something.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return steady(w, world.Server4, every, 1), deferring(w, log, 512)
			},
		},
		{
			Name:    "diagnose-defer-client-first",
			Title:   "TCP_DEFER_ACCEPT where the client speaks first",
			Finding: "healthy",
			Explain: "20 clients a second connect and send a request at once, which is what TCP_DEFER_ACCEPT is for.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				c := &crowd{w: w, server: world.Server4, asks: true}
				return c.steady(every, 1), deferring(w, log, 512)
			},
		},
		{
			Name:    "diagnose-defer-fills-queue",
			Title:   "TCP_DEFER_ACCEPT fills the SYN queue",
			Finding: "other_drops",
			Names:   []string{"defer_accept", "held back until"},
			Explain: "20 clients a second connect and wait for a greeting, until the handshakes that TCP_DEFER_ACCEPT holds back fill the SYN queue of listen(fd, 16), with cookies off.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctl("net.ipv4.tcp_syncookies", "0"); err != nil {
					return nil, err
				}
				return steady(w, world.Server4, every, 1), deferring(w, log, 16)
			},
		},
	}
}
