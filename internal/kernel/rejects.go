// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// rejecters are the modules whose rules reject packets; each counts its rules as references.
var rejecters = []string{"nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6",
	"nft_reject_bridge", "nft_reject_netdev", "ipt_REJECT", "ip6t_REJECT"}

// answerers are the modules that build the answers, for rejecters and whoever else wants to.
var answerers = []string{"nf_reject_ipv4", "nf_reject_ipv6"}

// RejectUse is what modules tell of rules that reject, where such code is in modules.
type RejectUse struct {
	Loaded bool // some such code is
	Used   bool // some rule of some namespace may reject
}

// ModulesReject reads it.
func ModulesReject() (RejectUse, error) {
	text, err := os.ReadFile("/proc/modules")
	if errors.Is(err, os.ErrNotExist) {
		return RejectUse{}, nil // this kernel has none
	}
	if err != nil {
		return RejectUse{}, fmt.Errorf("read modules: %w", err)
	}
	return rejectUse(text), nil
}

// rejectUse reads lines of: name, size, references, modules that use it and a comma after each, ...
func rejectUse(text []byte) (use RejectUse) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 {
			continue
		}
		users := strings.FieldsFunc(fields[3], between)
		switch {
		case slices.Contains(answerers, fields[0]):
			use.Loaded = true
			use.Used = use.Used || slices.ContainsFunc(users, isStranger)
		case slices.Contains(rejecters, fields[0]):
			references, err := strconv.Atoi(fields[2])
			use.Loaded = true
			use.Used = use.Used || err != nil || references > len(users)
		}
	}
	return use
}

func between(r rune) bool { return r == ',' || r == '-' }

// isStranger reports whether nothing is known of what a module answers.
func isStranger(name string) bool {
	return !slices.Contains(rejecters, name) && !slices.Contains(answerers, name)
}

// maxRejectSpaces bounds how many namespaces are asked for their rules.
const maxRejectSpaces = 256

// RulesReject reports whether a rule of some namespace may reject: what cannot be read may. It
// takes CAP_SYS_ADMIN. Namespaces without processes and names are not known.
func RulesReject() bool {
	list, hidden, err := NetNamespaces("/proc")
	if err != nil || hidden > 0 || len(list) > maxRejectSpaces {
		return true
	}
	tables := HasNFTables()
	for _, ns := range list {
		rejects := true
		err := InNetNS(ns.path(), ns.Inode, func() error {
			rejects = legacyRulesHere() || tables && rejectsHere()
			return nil
		})
		if err != nil || rejects {
			return true
		}
	}
	return false
}

// path is one by which the namespace can be entered.
func (n *NetNS) path() string {
	if len(n.Through) > 0 {
		return fmt.Sprintf("/proc/%d/ns/net", n.Through[0])
	}
	return NamedNetNS(n.Names[0])
}

// legacyRulesHere reports whether iptables' own tables are in use, whose rules are not read.
func legacyRulesHere() bool {
	for _, names := range []string{"ip_tables_names", "ip6_tables_names"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + names)
		if len(text) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// rejectsHere reports whether a rule of nftables in the calling thread's namespace may reject.
func rejectsHere() bool {
	rejects := false
	err := eachRule(func(rule *nftables.Rule) {
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case *expr.Reject:
				rejects = true
			case *expr.Target: // of iptables
				rejects = rejects || e.Name == "REJECT"
			}
		}
	})
	return rejects || err != nil
}
