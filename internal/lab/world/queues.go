// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// States of sockets as /proc/net/tcp prints them.
const (
	stateSynRecv = "03"
	stateListen  = "0A"
)

// queues counts what the namespace's listeners hold: finished handshakes that
// wait for accept(), and half-open ones. The latter are listed even when their
// listener is gone (established_get_first walks them, not the listener).
func (w *World) queues() (accepted, halfOpen int, err error) {
	err = w.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			f, err := os.Open("/proc/thread-self/net/" + name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // no IPv6
			}
			if err != nil {
				return err
			}
			defer f.Close()
			lines := bufio.NewScanner(f)
			for lines.Scan() {
				// number, local and remote address, state, queues, ...
				fields := strings.Fields(lines.Text())
				if len(fields) < 5 {
					continue
				}
				switch fields[3] {
				case stateSynRecv:
					halfOpen++
				case stateListen:
					// A listener's receive queue is its accept queue.
					var transmit, receive int
					if _, err := fmt.Sscanf(fields[4], "%X:%X", &transmit,
						&receive); err != nil {
						return fmt.Errorf("read queues %q of %s: %w",
							fields[4], name, err)
					}
					accepted += receive
				}
			}
			if err := lines.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read sockets: %w", err)
	}
	return accepted, halfOpen, nil
}

// WantQueues fails unless the listeners hold exactly that much.
func (w *World) WantQueues(accepted, halfOpen int) error {
	a, h, err := w.queues()
	if err != nil {
		return err
	}
	if a != accepted || h != halfOpen {
		return fmt.Errorf("%d finished and %d half-open handshakes are queued, expected %d and %d", a, h, accepted, halfOpen)
	}
	return nil
}

// expiryTimeout is far above what the timers of these scenarios take, 3 s at
// most, even where a second is late.
const expiryTimeout = 30 * time.Second

// AwaitExpiry waits until no half-open handshake is left. Only a timer can end
// them, so there is nothing to wait on but what the kernel lists.
func (w *World) AwaitExpiry(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, expiryTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, halfOpen, err := w.queues()
		if err != nil {
			return err
		}
		if halfOpen == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d half-open handshakes do not expire: %w", halfOpen,
				ctx.Err())
		}
	}
}
