// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

func TestPlayedIn(t *testing.T) {
	const output = `synspy: a line for people
{"v":1,"type":"scenario","name":"good","passed":true,"duration_ms":1500}
{"v":1,"type":"drop","cause":"netfilter"}
{"v":1,"type":"scenario","name":"bad","passed":false,"mismatches":["want 5, got 4"],"duration_ms":20}
{"v":1,"type":"drop","cause":"checksum"}
{"v":1,"type":"scenario","name":"absent","passed":false,"cannot":"no such thing","duration_ms":0}
{"v":1,"type":"summary","duration_ms":9}
`
	got := playedIn([]byte(output))
	if len(got) != 3 {
		t.Fatalf("got %d scenarios, want 3: %v", len(got), got)
	}
	if p := got["good"]; p.status != 0 || p.took != 1500*time.Millisecond {
		t.Errorf("good: %+v", p)
	}
	if p := got["bad"]; p.status != exitFailed || string(p.output) != `{"v":1,"type":"scenario","name":"bad","passed":false,"mismatches":["want 5, got 4"],"duration_ms":20}
{"v":1,"type":"drop","cause":"checksum"}
` {
		t.Errorf("bad: status %d, output %s", p.status, p.output)
	}
	if p := got["absent"]; p.status != exitCannot || p.cannot != "no such thing" {
		t.Errorf("absent: %+v", p)
	}
}
