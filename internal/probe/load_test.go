// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"regexp"
	"testing"

	"github.com/cilium/ebpf"
)

// TestLoad puts each backend's programs through this kernel's verifier.
func TestLoad(t *testing.T) {
	facts, err := Gather("")
	if err != nil {
		t.Fatal(err)
	}
	facts.verifierLog = ebpf.LogLevelStats
	for _, backend := range Backends() {
		t.Run(backend, func(t *testing.T) {
			facts.Try()
			plan, err := Make(facts, backend)
			if errors.Is(err, ErrCannotTrace) && backend != Auto {
				t.Logf("this kernel refuses %s: %v", backend, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			collection, err := load(facts, plan, Config{Rate: 100, Cookies: true, Accepts: true})
			var verifier *ebpf.VerifierError
			if errors.As(err, &verifier) {
				t.Fatalf("%+v", verifier)
			}
			if err != nil {
				t.Fatal(err)
			}
			logVerified(t, collection.Programs)
			collection.Close()
		})
	}
}

// processed is how the verifier ends what it says of a program that it takes.
var processed = regexp.MustCompile(`processed (\d+) insns`)

// logVerified tells how much of each program the verifier walked, of a million that it walks at most.
// test/vm makes a table of these lines. Before 5.16 the log alone has it.
func logVerified(t *testing.T, programs map[string]*ebpf.Program) {
	t.Helper()
	for name, program := range programs {
		info, err := program.Info()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n, ok := info.VerifiedInstructions(); ok {
			t.Logf("%s: %d instructions verified", name, n)
		} else if said := processed.FindStringSubmatch(program.VerifierLog); said != nil {
			t.Logf("%s: %s instructions verified", name, said[1])
		}
	}
}
