// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"github.com/synspy/synspy/internal/probe/message"
	"net"
	"os"
	"testing"
	"time"
)

// TestRead: the reader sleeps until the kernel side wakes it, which it does once for all messages
// that come within gatherTime.
func TestRead(t *testing.T) {
	const listeners = 40
	p, must := openHere(t)
	_, found := holdersHere(t, p)
	must(p.Start(found, func(uint64) bool { return true }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened, ended := make(chan uint16, listeners), make(chan error, 1)
	messages, ticks := 0, 0
	go func() {
		ended <- p.Read(ctx, func(m *message.Message) error {
			messages++
			if m.Kind == message.KindOpened && m.PID == uint32(os.Getpid()) {
				opened <- m.Listener.Port
			}
			return nil
		}, func() error {
			ticks++
			return nil
		}, time.Hour)
	}()
	began := time.Now()
	for range listeners {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		must(err)
		defer l.Close()
	}
	for came := range listeners {
		select {
		case <-opened:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d messages came", came, listeners)
		}
	}
	took := time.Since(began)
	cancel()
	select {
	case err := <-ended:
		must(err)
	case <-time.After(10 * time.Second):
		t.Fatal("Read did not end with its context")
	}
	// One for each time that something waited, and one for the end.
	if most := int(took/gatherTime) + 4; ticks > most {
		t.Errorf("read %d times within %s, for %d messages; want %d at most", ticks, took,
			messages, most)
	}
}
