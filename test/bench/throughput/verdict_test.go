// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"errors"
	"strings"
	"testing"

	"github.com/synspy/synspy/test/bench/traffic"
)

func TestVerdict(t *testing.T) {
	pair := func(tracer, load string, on float64) result {
		return result{Kind: "pair", Where: inGuest, Tracer: tracer, Workload: load,
			Off: [2]float64{100, 100}, On: on, WallOff: [2]float64{50, 50}, WallOn: on / 4}
	}
	all := []result{
		{Kind: "machine", Where: inGuest, Kernel: "6.12", CPUs: 2},
		pair(synspyName, "accepted_syn", 98), pair(peerName, "accepted_syn", 80),
		pair(synspyName, "dropped_syn", 60), pair(peerName, "dropped_syn", 50),
		{Kind: "flood", Where: inGuest, Tracer: synspyName, Drops: traffic.FloodSize, FinalCounted: traffic.FloodSize, Balanced: true},
	}
	rendered := func() string {
		var out strings.Builder
		if err := render(&out, all); !errors.Is(err, errMissed) {
			t.Errorf("got %v, want a missed target", err)
		}
		return out.String()
	}
	out := rendered()
	for _, want := range []string{
		"PASS  accepted SYNs: at most 0.25 of the script's loss: 2.0 % lost against 20.0 %, 0.10 of it (by the clock 51.0 % against 60.0 %)\n",
		"MISS  dropped SYNs: at most 0.50 of the script's loss: 40.0 % lost against 50.0 %, 0.80 of it (by the clock 70.0 % against 75.0 %)\n",
		"----  dropped cookie ACKs: at most 0.50 of the script's loss: not measured\n",
		"PASS  every drop counted: 1 of 1 floods",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	// The empty program is told of, and decides nothing: here it loses more than synspy.
	all = append(all, pair(emptyName, "accepted_syn", 97))
	const accepted = "PASS  accepted SYNs: at most 0.25 of the script's loss: 2.0 % lost against 20.0 %, 0.10 of it " +
		"(by the clock 51.0 % against 60.0 %) (an empty program at the same place: 3.0 %)\n"
	if out := rendered(); !strings.Contains(out, accepted) {
		t.Errorf("no %q in\n%s", accepted, out)
	}
}
