// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"go/constant"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestCausesAreWhole: each cause has an outcome that leads to it, a finding that explains it, and a
// scenario of the lab that plays it, or says in its row why not.
func TestCausesAreWhole(t *testing.T) {
	outcomes, findings := make(map[event.Cause]bool), make(map[event.Cause]bool)
	for o := range event.NumOutcomes {
		outcomes[o.Branch().Cause] = true
	}
	for _, f := range event.Findings() {
		for _, c := range f.Causes {
			findings[c] = true
		}
	}
	p := load(t, "./internal/lab/...")
	scenarios := p.causesIn("internal/lab/listenpath/", "internal/lab/ingress/")
	if len(scenarios) < 10 {
		t.Errorf("only %d causes are found in the lab", len(scenarios))
	}
	for _, c := range event.Causes() {
		for _, part := range []struct {
			there         bool
			why           string
			what, whither string
		}{
			{outcomes[c.Cause], c.NoOutcome, "outcome",
				"branches of internal/event/outcome.go, NoOutcome"},
			{findings[c.Cause], c.NoFinding, "finding",
				"Causes of a row of internal/event/finding.go, NoFinding"},
			{scenarios[c.Cause], c.NoScenario, "scenario",
				"a scenario of internal/lab/listenpath or ingress, NoScenario"},
		} {
			switch {
			case part.there && part.why != "":
				t.Errorf("%s has a %s, and says that it has none: %s", c.Name,
					part.what, part.why)
			case !part.there && part.why == "":
				t.Errorf("%s has no %s: add it (%s if it can have none)", c.Name,
					part.what, part.whither)
			}
		}
	}
}

// causesIn lists the causes that the source in some folders names.
func (p *source) causesIn(folders ...string) map[event.Cause]bool {
	found := make(map[event.Cause]bool)
	for id, object := range p.info.Uses {
		named, ok := object.(*types.Const)
		if !ok || !strings.HasSuffix(named.Type().String(), "/internal/event.Cause") {
			continue
		}
		at := strings.TrimPrefix(p.fset.Position(id.Pos()).Filename, p.dir+"/")
		if !slices.ContainsFunc(folders,
			func(folder string) bool { return strings.HasPrefix(at, folder) }) {
			continue
		}
		if value, exact := constant.Int64Val(named.Val()); exact {
			found[event.Cause(value)] = true
		}
	}
	return found
}
