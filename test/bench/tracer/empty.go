// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"context"
	"fmt"
	"io"
)

// EmptyPlace is where the empty program is called: the exit of the function that an
// accepted SYN takes, which is where synspy looks at it too.
const EmptyPlace = "tcp_v4_conn_request"

// RunEmpty is a tracer that does nothing: what it takes is the price of being called at
// that place, and no fexit program there can take less. It ends with the context.
func RunEmpty(ctx context.Context, stdout io.Writer) error {
	detach, err := Place{"fexit", EmptyPlace}.AttachEmpty()
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "READY")
	<-ctx.Done()
	return detach()
}
