// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
)

// emptyPlace is where the empty program is called: the exit of the function that an
// accepted SYN takes, which is where synspy looks at it too.
const emptyPlace = "tcp_v4_conn_request"

// runEmpty is a tracer that does nothing: what it takes is the price of being called at
// that place, and no fexit program there can take less. It ends with the context.
func runEmpty(ctx context.Context, stdout io.Writer) error {
	detach, err := place{"fexit", emptyPlace}.attachEmpty()
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "READY")
	<-ctx.Done()
	return detach()
}

// findEmpty gives the path of the program that has the verb empty, this one, or nothing
// where the empty program cannot attach.
func (b *bench) findEmpty() (self string, err error) {
	detach, err := place{"fexit", emptyPlace}.attachEmpty()
	if err != nil {
		b.say("measuring without the empty program: %v", err)
		return "", nil
	}
	if err := detach(); err != nil {
		return "", err
	}
	return os.Executable()
}
