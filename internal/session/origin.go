// SPDX-License-Identifier: Apache-2.0

package session

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// newOrigin is that of a run that begins here and now.
func newOrigin(program event.Program) event.Origin {
	var run [8]byte
	_, _ = rand.Read(run[:]) // never fails
	return event.Origin{Run: hex.EncodeToString(run[:]), Host: kernel.HostName(),
		BootID: kernel.BootID(), Program: program}
}
