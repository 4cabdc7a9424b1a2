// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// TestLoad puts each backend's programs through this kernel's verifier.
func TestLoad(t *testing.T) {
	here, err := facts.Gather("")
	if err != nil {
		t.Fatal(err)
	}
	here.VerifierLog = ebpf.LogLevelStats
	for _, backend := range facts.Backends() {
		t.Run(backend, func(t *testing.T) {
			here.Try()
			plan, err := plan.Make(here, backend)
			if errors.Is(err, facts.ErrCannotTrace) && backend != facts.Auto {
				t.Logf("this kernel refuses %s: %v", backend, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			collection, err := Programs(here, plan,
				Config{Rate: 100, Cookies: true, Accepts: true})
			var verifier *ebpf.VerifierError
			if errors.As(err, &verifier) {
				t.Fatalf("%+v", verifier)
			}
			if err != nil {
				t.Fatal(err)
			}
			probetest.LogVerified(t, collection.Programs)
			collection.Close()
		})
	}
}
