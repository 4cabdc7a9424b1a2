// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// FirewallRule is a rule of nftables (iptables' own ones too, where it is built on that) that drops
// or rejects and counts what it does so to.
type FirewallRule struct {
	Family, Table, Chain string
	Handle               uint64
	Packets              uint64 // that it counted since it was made, of any kind
}

// maxFirewallRules bounds how many rules are read of a namespace.
const maxFirewallRules = 16384

// ErrManyRules says that a namespace has more rules than are read.
var ErrManyRules = fmt.Errorf("more than %d rules", maxFirewallRules)

// HasNFTables reports whether nftables is there to be asked: part of the kernel, or a module that
// is loaded.
func HasNFTables() bool {
	if HasModule("nf_tables") {
		return true
	}
	code, err := CodeRanges("nft_do_chain") // knows no module's functions
	return err == nil && len(code) > 0
}

// FirewallRulesHere lists those of the calling thread's network namespace. Asking makes the kernel
// load nf_tables where that is a module: ask only where it is there. It takes CAP_NET_ADMIN in that
// namespace.
func FirewallRulesHere() (list []FirewallRule, err error) {
	err = eachRule(func(rule *nftables.Rule) {
		if packets, ok := droppedBy(rule.Exprs); ok {
			list = append(list, FirewallRule{Family: familyName(rule.Table.Family),
				Table: rule.Table.Name, Chain: rule.Chain.Name, Handle: rule.Handle,
				Packets: packets})
		}
	})
	return list, err
}

// eachRule hands over every rule of the calling thread's network namespace.
func eachRule(f func(*nftables.Rule)) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("list firewall rules: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("list firewall rules: %w", err)
	}
	read := 0
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if errors.Is(err, unix.ENOENT) {
			continue // gone meanwhile
		}
		if err != nil {
			return fmt.Errorf("list firewall rules: %w", err)
		}
		if read += len(rules); read > maxFirewallRules {
			return fmt.Errorf("list firewall rules: %w", ErrManyRules)
		}
		for _, rule := range rules {
			rule.Table, rule.Chain = chain.Table, chain // by name alone in the answer
			f(rule)
		}
	}
	return nil
}

// droppedBy is what a rule counted, if it drops or rejects.
func droppedBy(exprs []expr.Any) (packets uint64, ok bool) {
	counts, drops := false, false
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Counter:
			packets, counts = e.Packets, true
		case *expr.Verdict:
			drops = drops || e.Kind == expr.VerdictDrop
		case *expr.Reject:
			drops = true
		case *expr.Target: // of iptables
			drops = drops || e.Name == "REJECT"
		}
	}
	return packets, counts && drops
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyNetdev:
		return "netdev"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprintf("family %d", f)
}
