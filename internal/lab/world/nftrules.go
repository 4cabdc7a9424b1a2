// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netlinkPatience bounds the wait for the kernel's answers: to a batch for a subsystem that it
// lacks it gives one, not one a message.
const netlinkPatience = 10 * time.Second

// AddRule adds a rule to the World, and looks whether the kernel has it then. build adds it with
// its chain, which it returns. The error wraps ErrCannotHold, with what is needed, where the kernel
// did not take the rule: the rules of scenarios are right for kernels that have them.
func (w *World) AddRule(needs string, build func(*nftables.Conn) *nftables.Chain) error {
	err := w.Do(func() error {
		conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error { // its sockets are those of this thread's namespace
			return c.SetDeadline(time.Now().Add(netlinkPatience))
		}))
		if err != nil {
			return err
		}
		chain := build(conn)
		if err := conn.Flush(); err != nil {
			return err
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err == nil && len(rules) == 0 {
			err = fmt.Errorf("the chain has no rule after one was added: %w",
				unix.ENOENT)
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(unix.Errno)), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: it needs %s: %w", ErrCannotHold, needs, err)
	default:
		return fmt.Errorf("add nftables rule: %w", err)
	}
}
