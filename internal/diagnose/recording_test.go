package diagnose

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
)

const dropLine = `{"v":1,"type":"drop","time":"2026-11-22T04:55:0%d.100000000Z","cause":"accept_queue_full","stage":"syn","action":"dropped","proof":"counters",` +
	`"client":{"addr":"10.0.0.%d","port":51234},"server":{"addr":"10.0.0.1","port":443},` +
	`"listener":{"addr":"0.0.0.0","port":443,"cookie":"4711","netns":7,"accept_queue":{"len":17,"limit":16}%s},` +
	`"processes":[{"pid":812,"comm":"server","role":"acceptor","last_accept_ms":%d}]}`

func record(t *testing.T, lines ...string) *Evidence {
	t.Helper()
	var r Recording
	for _, line := range lines {
		rec, err := event.Decode([]byte(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		r.Add(rec)
	}
	return r.Evidence()
}

func TestRecording(t *testing.T) {
	ready := `{"v":1,"type":"ready","time":"2026-11-22T04:55:00.000000000Z"}`
	seen := func(syn int) string {
		return fmt.Sprintf(`"seen":[{"listener":{"addr":"0.0.0.0","port":443,"cookie":"4711","netns":7},"syn":%d,"ack":%d}],"ledger":[],"balanced":true}`, syn, syn)
	}
	summary := func(counts string, syn int) string {
		return `{"v":1,"type":"summary","duration_ms":10000,"counts":[` + counts + `],` + seen(syn)
	}
	held := `{"v":1,"type":"suppressed","count":40,"cause":"accept_queue_full","stage":"syn","action":"dropped","listener":{"addr":"0.0.0.0","port":443,"cookie":"4711","netns":7}}`
	full := `{"cause":"accept_queue_full","stage":"syn","action":"dropped","count":42}`
	netfilter := `{"v":1,"type":"drop","time":"2026-11-22T04:55:03.000000000Z","cause":"netfilter","stage":"ingress","action":"dropped","kernel":{"hook":"input"},"client":{"addr":"10.0.0.9","port":5},"server":{"addr":"10.0.0.1","port":443},"netns":7}`

	for _, tt := range []struct {
		name    string
		lines   []string
		want    []string
		verdict string
	}{
		{"overflows", []string{ready, fmt.Sprintf(dropLine, 2, 7, "", 1900), fmt.Sprintf(dropLine, 5, 8, "", 4900), held, summary(full, 900)},
			[]string{"cause other_drops", "contributing backlog_too_small"}, "42 handshake packets to 0.0.0.0:443 died"},
		{"one of a group", []string{ready, fmt.Sprintf(dropLine, 2, 7, `,"reuseport":{"members":4,"full":1}`, 1900), held, fmt.Sprintf(dropLine, 6, 8, `,"reuseport":{"members":4,"full":1}`, 900), summary(full, 900)},
			[]string{"cause reuseport_imbalance", "contributing backlog_too_small"}, "1 of the 4"},
		{"a firewall", []string{ready, netfilter, netfilter, summary(`{"cause":"netfilter","stage":"ingress","action":"dropped","count":2}`, 0)},
			[]string{"cause dropped_before_listener"}, "2 handshake packets died"},
		{"healthy", []string{ready, summary("", 900)}, []string{"note healthy"}, "900 SYNs arrived and none was dropped"},
		{"nothing came", []string{ready, summary("", 0)}, []string{"note no_syn_arrived"}, "No SYN"},
		{"cut short", []string{ready}, nil, "this input does not say"},
		{"cut short at a drop", []string{fmt.Sprintf(dropLine, 2, 7, "", 1900)}, []string{"cause other_drops", "contributing backlog_too_small"}, "1 handshake packet to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Diagnose(record(t, tt.lines...))
			var got []string
			for _, f := range d.Findings {
				got = append(got, string(f.Severity)+" "+string(f.ID))
				complete(t, f)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || !strings.Contains(d.Verdict, tt.verdict) {
				t.Errorf("findings (-want +got):\n%s%s", diff, d.Verdict)
			}
			if len(d.Cannot) == 0 || !strings.Contains(fmt.Sprint(d.Cannot), "accept_loop_blocked") {
				t.Errorf("what a file cannot support is not said: %v", d.Cannot)
			}
		})
	}

	e := record(t, ready, fmt.Sprintf(dropLine, 2, 7, "", 1900), fmt.Sprintf(dropLine, 5, 8, "", 4900), held, summary(full, 900))
	l := e.Listeners[0]
	if len(e.Listeners) != 1 || *l.LongestGapMs != 4900 || *l.Syns != 900 || l.dropped(event.CauseAcceptQueueFull) != 42 {
		t.Errorf("listener %+v", l)
	}
	var drops uint64
	for _, p := range l.Timeline {
		drops += *p.Drops
	}
	if drops != 2 || l.Timeline[21].AcceptQueue == nil || len(l.Timeline) != 100 {
		t.Errorf("timeline of %d points has %d drops, at 2.1 s %+v", len(l.Timeline), drops, l.Timeline[21])
	}
	if e.ClientsSeen != nil || len(e.Clients) != 2 {
		t.Errorf("clients %v of %v, though records were held back", e.Clients, e.ClientsSeen)
	}
}
