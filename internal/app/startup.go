// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"log/slog"
)

// ErrInterrupted says that a signal came before anything was watched: there is no
// stream to end cleanly.
var ErrInterrupted = errors.New("interrupted before it began to watch")

// openUntil is open, but does not outlast the context: loading and attaching may
// take seconds. What it was doing is undone behind its back.
func openUntil(ctx context.Context, watch Watch, log *slog.Logger) (*session, error) {
	type opened struct {
		session *session
		err     error
	}
	done := make(chan opened, 1)
	go func() {
		s, err := open(watch, log)
		done <- opened{s, err}
	}()
	select {
	case o := <-done:
		if o.err == nil && ctx.Err() != nil {
			return nil, errors.Join(ErrInterrupted, o.session.close())
		}
		return o.session, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil {
				_ = o.session.close() // nothing is lost with it
			}
		}()
		return nil, ErrInterrupted
	}
}
