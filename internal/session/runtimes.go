// SPDX-License-Identifier: Apache-2.0

package session

import (
	"log/slog"
	"os"

	"github.com/synspy/synspy/internal/owner/containers"
)

// AskRuntimes begins to ask this machine's container runtimes for names; they are
// to be closed. A runtime that cannot be asked leaves its containers their IDs.
func AskRuntimes(log *slog.Logger) *containers.Names {
	endpoints, err := containers.Endpoints(os.Getenv)
	if err != nil {
		log.Warn("containers and pods may stay without names", "error", err)
	}
	return containers.New(endpoints, log)
}
