// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// TestRuleNotTaken: what the kernel does not know, as for want of a module, is no failure of
// whoever is judged by it.
func TestRuleNotTaken(t *testing.T) {
	w := emptyWorld(t)
	if err := w.Firewall(Server4, HookInput, Drop().Verdict); errors.Is(err, ErrCannotHold) {
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
		err := emptyWorld(t).Firewall(Server4, HookInput, verdict)
		if !errors.Is(err, ErrCannotHold) || !errors.As(err, new(unix.Errno)) ||
			!strings.Contains(err.Error(), "it needs nf_tables") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A batch that the kernel took, and that holds no rule.
	err := emptyWorld(t).AddRule("everything", func(conn *nftables.Conn) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: "lab",
			Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4,
				Name: "lab"})})
	})
	if !errors.Is(err, ErrCannotHold) {
		t.Errorf("no rule: %v", err)
	}
}

func emptyWorld(t *testing.T) *World {
	t.Helper()
	w, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}
