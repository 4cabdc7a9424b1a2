package probe

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

// TestLoad puts each backend's programs through this kernel's verifier.
func TestLoad(t *testing.T) {
	facts, err := Gather("")
	if err != nil {
		t.Fatal(err)
	}
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
			for name, program := range collection.Programs {
				if info, err := program.Info(); err == nil {
					if n, ok := info.VerifiedInstructions(); ok {
						t.Logf("%s: %d instructions verified", name, n)
					}
				}
			}
			collection.Close()
		})
	}
}
