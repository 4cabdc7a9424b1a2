// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// serve starts a server with one listener.
func serve(w *world.World, comm string, l server.ListenConfig) (*server.Server, error) {
	if !l.Addr.IsValid() {
		l.Addr = world.Any4
	}
	return server.Start(w,
		server.Config{Comm: []byte(comm), Listeners: []server.ListenConfig{l}})
}

// innocent starts a server that accepts at once.
func innocent(w *world.World, log func(string, ...any)) error {
	s, err := serve(w, "lab-innocent", server.ListenConfig{Backlog: 512, Accept: true})
	if err == nil {
		log("process %d accepts at once", s.PID)
	}
	return err
}
