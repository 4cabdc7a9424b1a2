// SPDX-License-Identifier: Apache-2.0

package app

import (
	"log/slog"
	"os"
	"time"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner/containers"
	"github.com/synspy/synspy/internal/probe"
)

// askRuntimes begins to ask this machine's container runtimes for names; they are
// to be closed. A runtime that cannot be asked leaves its containers their IDs.
func askRuntimes(log *slog.Logger) *containers.Names {
	endpoints, err := containers.Endpoints(os.Getenv)
	if err != nil {
		log.Warn("containers and pods may stay without names", "error", err)
	}
	return containers.New(endpoints, log)
}

// nameHolders sees to it that the tables know who holds a record's listener and
// what their containers are called, as far as the record may wait for that.
func (t *trace) nameHolders(m *probe.Message, came uint64) error {
	t.refreshHolders(m.Listener.Socket, m.Time, came)
	if t.owners.AwaitsNames() {
		sockets := []uint64{m.Listener.Socket}
		if !m.Listener.Member {
			sockets = t.listeners.group(&m.Listener)
		}
		t.owners.AwaitNames(refreshWait-time.Duration(kernel.Monotonic()-came), sockets...)
	}
	return t.rejudgeRenamed()
}
