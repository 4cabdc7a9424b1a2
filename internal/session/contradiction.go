// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/load"
)

// Contradiction refuses filters of which no packet can pass all: the silence that they make would
// be taken for health.
func Contradiction(f *load.Filter, of owner.Filter) error {
	if err := impossibleStages(f.Causes, f.Stages); err != nil {
		return err
	}
	for _, cause := range f.Causes {
		if stages := event.StagesOf(cause); of != (owner.Filter{}) && len(stages) == 1 &&
			stages[0] == event.StageIngress {
			return cli.Usage("--cause %v does not go with a filter by process: what dies before a listener is nobody's", cause)
		}
	}
	if of != (owner.Filter{}) && len(f.Stages) > 0 &&
		!slices.ContainsFunc(f.Stages,
			func(s event.Stage) bool { return s != event.StageIngress }) {
		return cli.Usage("--stage ingress does not go with a filter by process: what dies before a listener is nobody's")
	}
	if len(f.Servers) > 0 && len(f.Clients) > 0 && !sameFamily(f.Servers, f.Clients) {
		return cli.Usage(
			"--addr and --client are of different IP versions: no packet has both")
	}
	return nil
}

func impossibleStages(causes []event.Cause, stages []event.Stage) error {
	if len(causes) == 0 || len(stages) == 0 {
		return nil
	}
	possible := make(map[event.Stage]bool)
	for _, cause := range causes {
		of := event.StagesOf(cause)
		if !slices.ContainsFunc(stages, func(s event.Stage) bool {
			return len(of) == 0 ||
				slices.Contains(of, s)
		}) {
			return cli.Usage("--cause %v and --stage %s do not go together: it happens at %s", cause, stageList(stages), stageList(of))
		}
		for _, stage := range stages {
			possible[stage] = possible[stage] || len(of) == 0 ||
				slices.Contains(of, stage)
		}
	}
	for _, stage := range stages {
		if !possible[stage] {
			return cli.Usage("--stage %v does not go with --cause: none of these causes happens there", stage)
		}
	}
	return nil
}

func stageList(stages []event.Stage) string {
	names := make([]string, len(stages))
	for i, s := range stages {
		names[i] = s.String()
	}
	return strings.Join(names, ", ")
}

// sameFamily reports whether two lists of networks have a version of IP in common.
func sameFamily(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool {
		return slices.ContainsFunc(b,
			func(q netip.Prefix) bool {
				return p.Addr().Unmap().Is4() == q.Addr().Unmap().Is4()
			})
	})
}

// unknownName is a name that a flag does not take, with what was meant.
func unknownName(flag, name, kind string, of []string) error {
	hint := fmt.Sprintf("there are: %s", strings.Join(of, ", "))
	if near := cli.DidYouMean(name, of); near != "" {
		hint = near
	}
	return cli.Usage("--%s %q is no %s; %s", flag, name, kind, hint)
}
