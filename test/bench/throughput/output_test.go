// SPDX-License-Identifier: Apache-2.0

package throughput

import "testing"

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
