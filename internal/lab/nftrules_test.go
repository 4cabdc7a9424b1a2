// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// TestRuleNotTaken: what the kernel does not know, as for want of a module, is no failure of whoever is judged by it.
func TestRuleNotTaken(t *testing.T) {
	w := newWorld(t)
	if err := w.firewall(server4, hookInput, drop().verdict); errors.Is(err, ErrCannotHold) {
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
		err := newWorld(t).firewall(server4, hookInput, verdict)
		if !errors.Is(err, ErrCannotHold) || !errors.As(err, new(unix.Errno)) || !strings.Contains(err.Error(), "it needs nf_tables") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A batch that the kernel took, and that holds no rule.
	err := newWorld(t).addRule("everything", func(conn *nftables.Conn) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: "lab", Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"})})
	})
	if !errors.Is(err, ErrCannotHold) {
		t.Errorf("no rule: %v", err)
	}
}
