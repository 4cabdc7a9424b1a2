// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestClientsAndTheirAnswers(t *testing.T) {
	seen := make(map[string]client)
	for _, c := range []client{0, 1, hostsPerNet - 1, hostsPerNet, hostsPerNet*nets - 1, hostsPerNet * nets, pool, pool + 8191} {
		addr := c.addr()
		if got := clientOf(addr[:], c.port()); got != c {
			t.Errorf("client %d has address %v and port %d, which are those of %d", c, addr, c.port(), got)
		}
		syn := string(c.syn(80))
		if other, ok := seen[syn]; ok {
			t.Errorf("clients %d and %d send the same SYN", c, other)
		}
		seen[syn] = c
		if _, _, ok := synAck([]byte(syn)); ok {
			t.Errorf("the SYN of client %d is taken for an answer", c)
		}
	}
}

func TestFrameChecksums(t *testing.T) {
	p := client(7).ack(8080, 99)
	if fold(sum(0, p[:20])) != 0xffff {
		t.Error("wrong IPv4 checksum")
	}
	if fold(sum(sum(6+20, p[12:20]), p[20:])) != 0xffff {
		t.Error("wrong TCP checksum")
	}
}

// Half of the chunks being slow must not change the rate.
func TestRateIgnoresDisturbance(t *testing.T) {
	var took times
	for i := range 100 {
		took = append(took, 0.001+0.001*float64(i%2)*10)
	}
	if got, want := took.rate(), chunk/0.001; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("rate %f, want %f", got, want)
	}
	if got, want := took.wallRate(), chunk/0.006; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("rate by the clock %f, want %f", got, want)
	}
}

func TestReadOutputs(t *testing.T) {
	const ours = `{"v":1,"type":"ready","backend":"trampoline"}
{"v":1,"type":"drop"}
{"v":1,"type":"suppressed","count":40}
{"v":1,"type":"lost","count":2}
{"v":1,"type":"summary","counts":[{"count":40},{"count":3}],"lost":2,"balanced":true}
{"v":1,"type":"dr`
	if printed, counted := readJSON([]byte(ours)); printed != 1 || counted != 43 {
		t.Errorf("printed %d, counted %d, want 1 and 43", printed, counted)
	}
	if s, ok := readSummary([]byte(ours)); !ok || s.total() != 43 || !s.Balanced || s.Lost != 2 {
		t.Errorf("summary %+v, %t", s, ok)
	}
	if backend := readBackend([]byte(ours)); backend != "trampoline" {
		t.Errorf("backend %q", backend)
	}
	const script = `READY
TIME_ms   STAGE ACT   NETNS
123       SYN   drop  4026531840
124       ACK   1     4026531840
125       SY`
	if printed, _ := readScript([]byte(script)); printed != 2 {
		t.Errorf("printed %d, want 2", printed)
	}
	if total := scriptTotal([]byte("@total[0, 1, 8080]: 44000\n@total[SYN, accept_queue_full, 80]: 7\n@other[1]: 2\n")); total != 44007 {
		t.Errorf("total %d, want 44007", total)
	}
}

func TestVerdict(t *testing.T) {
	pair := func(tracer, load string, on float64) result {
		return result{Kind: "pair", Where: inGuest, Tracer: tracer, Workload: load,
			Off: [2]float64{100, 100}, On: on, WallOff: [2]float64{50, 50}, WallOn: on / 4}
	}
	all := []result{
		{Kind: "machine", Where: inGuest, Kernel: "6.12", CPUs: 2},
		pair(synspyName, "accepted_syn", 98), pair(peerName, "accepted_syn", 80),
		pair(synspyName, "dropped_syn", 60), pair(peerName, "dropped_syn", 50),
		{Kind: "flood", Where: inGuest, Tracer: synspyName, Drops: floodSize, FinalCounted: floodSize, Balanced: true},
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
