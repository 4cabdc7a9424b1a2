// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// TestRefusedHere refuses a hook on this kernel, as it is attached.
func TestRefusedHere(t *testing.T) {
	here, err := facts.Gather("")
	if err != nil {
		t.Fatal(err)
	}
	one := func(hook *plan.Hook, name string, program *ebpf.Program) (link.Link, error) {
		if hook.Name == "tcp_send_reset" {
			return nil, probetest.ErrRefused
		}
		return load.AttachProgram(hook, name, program)
	}
	p, err := openBy(one, here, facts.Auto, load.Config{},
		slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, hook := range p.Plan().Events() {
		if refused := hook.Name == "tcp_send_reset"; refused &&
			(hook.Attached || len(hook.Blind) == 0 ||
				!strings.HasPrefix(hook.Note, "refused: ") ||
				!strings.Contains(hook.Note, probetest.ErrRefused.Error())) {
			t.Errorf("%+v", hook)
		}
	}
	if _, err := p.Walk(func(*holders.Holder) {}, nil); err != nil {
		t.Error(err)
	}
}
