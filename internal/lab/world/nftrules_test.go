// SPDX-License-Identifier: Apache-2.0

package world_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/lab/world/worldtest"
)

// TestRuleNotTaken: what the kernel does not know, as for want of a module, is no failure of
// whoever is judged by it.
func TestRuleNotTaken(t *testing.T) {
	w := worldtest.New(t)
	if err := w.Firewall(world.Server4, world.HookInput, world.Drop().Verdict); errors.Is(err, world.ErrCannotHold) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	info := xt.Unknown{0}
	for name, verdict := range map[string]expr.Any{
		"an unknown match":  &expr.Match{Name: "nosuch", Info: &info},
		"an unknown target": &expr.Target{Name: "NOSUCH", Info: &info},
		"a wrong reject":    &expr.Reject{Type: 99},
	} {
		err := worldtest.New(t).Firewall(world.Server4, world.HookInput, verdict)
		if !errors.Is(err, world.ErrCannotHold) || !errors.As(err, new(unix.Errno)) ||
			!strings.Contains(err.Error(), "it needs nf_tables") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A batch that the kernel took, and that holds no rule.
	err := worldtest.New(t).AddRule("everything", func(conn *nftables.Conn) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: "lab",
			Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4,
				Name: "lab"})})
	})
	if !errors.Is(err, world.ErrCannotHold) {
		t.Errorf("no rule: %v", err)
	}
}
