// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

const dropLine = `{"v":1,"type":"drop","time":"2026-11-22T04:55:0%d.100000000Z","cause":"accept_queue_full","stage":"syn","action":"dropped","proof":"counters",` +
	`"client":{"addr":"10.0.0.%d","port":51234},"server":{"addr":"10.0.0.1","port":443},` +
	`"listener":{"addr":"0.0.0.0","port":443,"cookie":"4711","netns":7,"accept_queue":{"len":17,"limit":16}%s},` +
	`"processes":[{"pid":812,"comm":"server","role":"acceptor","last_accept_ms":%d}]}`

func record(t *testing.T, lines ...string) *evidence.Evidence {
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
		{"overflows", []string{ready, fmt.Sprintf(dropLine, 2, 7, "", 1900),
			fmt.Sprintf(dropLine, 5, 8, "", 4900), held, summary(full, 900)},
			[]string{"cause other_drops",
				"contributing backlog_too_small"}, "42 handshake packets to 0.0.0.0:443 died"},
		{"one of a group", []string{ready, fmt.Sprintf(dropLine, 2, 7, `,"reuseport":{"members":4,"full":1}`, 1900), held, fmt.Sprintf(dropLine, 6, 8, `,"reuseport":{"members":4,"full":1}`, 900), summary(full, 900)},
			[]string{"cause reuseport_imbalance"}, "1 of the 4"},
		{"a firewall", []string{ready, netfilter, netfilter, summary(`{"cause":"netfilter","stage":"ingress","action":"dropped","count":2}`, 0)},
			[]string{"cause dropped_before_listener"}, "2 handshake packets died"},
		{"healthy", []string{ready, summary("", 900)}, []string{"note healthy"},
			"900 SYNs arrived and none was dropped"},
		{"nothing came", []string{ready, summary("", 0)}, []string{"note no_syn_arrived"},
			"No SYN"},
		{"cut short", []string{ready}, nil, "this input does not say"},
		{"cut short at a drop", []string{fmt.Sprintf(dropLine, 2, 7, "", 1900)},
			[]string{"cause other_drops",
				"contributing backlog_too_small"}, "1 handshake packet to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Diagnose(record(t, tt.lines...))
			var got []string
			for _, f := range d.Findings {
				got = append(got, string(f.Severity)+" "+string(f.ID))
				complete(t, f)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" ||
				!strings.Contains(d.Verdict, tt.verdict) {
				t.Errorf("findings (-want +got):\n%s%s", diff, d.Verdict)
			}
			if len(d.Cannot) == 0 || !strings.Contains(fmt.Sprint(d.Cannot),
				"accept_loop_blocked") {
				t.Errorf("what a file cannot support is not said: %v", d.Cannot)
			}
		})
	}

	e := record(t, ready, fmt.Sprintf(dropLine, 2, 7, "", 1900), fmt.Sprintf(dropLine, 5, 8, "",
		4900), held, summary(full, 900))
	l := e.Listeners[0]
	if len(e.Listeners) != 1 || *l.LongestGapMs != 4900 || *l.Syns != 900 ||
		l.Dropped(event.CauseAcceptQueueFull) != 42 {
		t.Errorf("listener %+v", l)
	}
	var drops uint64
	for _, p := range l.Timeline {
		drops += *p.Drops
	}
	if drops != 2 || l.Timeline[21].AcceptQueue == nil || len(l.Timeline) != 100 {
		t.Errorf("timeline of %d points has %d drops, at 2.1 s %+v", len(l.Timeline), drops,
			l.Timeline[21])
	}
	if e.ClientsSeen != nil || len(e.Clients) != 2 {
		t.Errorf("clients %v of %v, though records were held back", e.Clients,
			e.ClientsSeen)
	}
}

// TestRecordedGroup: what came to a group whose members were not told apart came to no further
// member.
func TestRecordedGroup(t *testing.T) {
	e := record(t, `{"v":1,"type":"ready"}`, fmt.Sprintf(dropLine, 2, 7, "", 1900),
		`{"v":1,"type":"summary","duration_ms":10000,"counts":[],"ledger":[],"balanced":true,`+
			`"seen":[{"listener":{"addr":"0.0.0.0","port":443,"netns":7,"proof":"state"},"syn":77,"ack":43}]}`)
	if len(e.Listeners) != 1 || e.Listeners[0].Syns != nil || e.GroupSyns == nil ||
		*e.GroupSyns != 77 {
		t.Errorf("SYNs to groups %v, listeners %+v", e.GroupSyns, e.Listeners)
	}
}

// TestFilteredRecording: what a filter left out was not proven to be well.
func TestFilteredRecording(t *testing.T) {
	summary := `{"v":1,"type":"summary","duration_ms":10000,"counts":[],"seen":[{"listener":{"addr":"0.0.0.0","port":443},"syn":900,"ack":900}],"ledger":[],"balanced":true}`
	for _, tt := range []struct {
		name, filters, verdict, says string
	}{
		{"none", ``, "900 SYNs arrived and none was dropped", ""},
		{"a port", `{"name":"port","value":"443"}`, "900 SYNs arrived and none was dropped", "filtered by --port 443: what that left out"},
		{"a cause", `{"name":"port","value":"443"},{"name":"cause","value":"checksum"}`, "proves nothing: the filter leaves out", "--port 443 --cause checksum"},
		{"a stage", `{"name":"stage","value":"ack"}`, "proves nothing: the filter leaves out", "--stage ack"},
		{"a client", `{"name":"client","value":"10.0.0.0/8"}`, "proves nothing: SYNs are not counted by client", "--client 10.0.0.0/8"},
	} {
		d := Diagnose(record(t, `{"v":1,"type":"ready","time":"2026-11-22T04:55:00.000000000Z","filters":[`+tt.filters+`]}`, summary))
		var says []string
		for _, c := range d.Cannot {
			if len(c.Findings) == 0 {
				says = append(says, c.Why)
			}
		}
		if !strings.Contains(d.Verdict, tt.verdict) ||
			(tt.says == "") != (len(says) == 0) || !strings.Contains(strings.Join(says,
			""), tt.says) {
			t.Errorf("%s: %s; not told: %q", tt.name, d.Verdict, says)
		}
	}
	nobody := Diagnose(record(t, `{"v":1,"type":"ready","filters":[{"name":"comm","value":"nosuch"}]}`, strings.Replace(summary, `{"listener":{"addr":"0.0.0.0","port":443},"syn":900,"ack":900}`, "", 1)))
	if !strings.Contains(nobody.Verdict, "no listener that the filter matches") {
		t.Error(nobody.Verdict)
	}
}

// TestVastRecordings: a file may say anything; what is made of it is bounded.
func TestVastRecordings(t *testing.T) {
	drop := func(year, cookie int) string {
		return fmt.Sprintf(`{"v":1,"type":"drop","time":"%04d-11-22T04:55:00Z","cause":"accept_queue_full","stage":"syn","action":"dropped",`+
			`"listener":{"addr":"0.0.0.0","port":443,"cookie":"%d","accept_queue":{"len":4294967295,"limit":4294967295}},`+
			`"processes":[{"pid":812,"last_accept_ms":18446744073709551615}]}`, year, cookie)
	}
	ready := `{"v":1,"type":"ready","time":"2026-11-22T04:55:00Z"}`
	summary := func(ms int64) string { return fmt.Sprintf(`{"v":1,"type":"summary","duration_ms":%d}`, ms) }
	for name, lines := range map[string][]string{
		"from the year 1 on":   {drop(1, 1), drop(9999, 1)},
		"a long while":         {ready, drop(2026, 1), drop(9999, 1)},
		"a long duration":      {ready, drop(2026, 1), summary(math.MaxInt64)},
		"49 days and a little": {ready, drop(2026, 1), summary(math.MaxUint32 + 1)},
		"49 days":              {ready, drop(2026, 1), summary(math.MaxUint32)},
		"no time at all":       {ready, drop(2026, 1), summary(math.MinInt64)},
	} {
		e := record(t, lines...)
		for _, p := range e.Listeners {
			if len(p.Timeline) > event.MaxTimelinePoints {
				t.Errorf("%s: %d points", name, len(p.Timeline))
			}
			for i := range p.Timeline[min(1, len(p.Timeline)):] {
				if p.Timeline[i+1].OffsetMs <= p.Timeline[i].OffsetMs {
					t.Fatalf("%s: point %d is not after the one before", name,
						i+1)
				}
			}
		}
		if d := Diagnose(e); d.Verdict == "" {
			t.Errorf("%s: no verdict", name)
		}
	}
	lines := []string{ready, drop(2026, 1), drop(2026, 1)}
	for cookie := range 5000 {
		lines = append(lines, drop(2026, 2+cookie))
	}
	e := record(t, append(lines, summary(3_600_000))...)
	timed := 0
	for _, l := range e.Listeners {
		if len(l.Timeline) > 0 {
			timed++
		}
	}
	if timed != maxTimed || len(e.Listeners[0].Timeline) == 0 || len(e.Listeners) != 5001 {
		t.Errorf("%d of %d listeners have a timeline, want the %d with most drops", timed,
			len(e.Listeners), maxTimed)
	}
}

// TestRecordingContradictsItself: where records were taken out or changed, nothing that rests on
// them is proven.
func TestRecordingContradictsItself(t *testing.T) {
	const closed = `{"v":1,"type":"drop","time":"2026-11-22T04:55:01.000000000Z","cause":"no_listener","stage":"ingress","action":"reset",` +
		`"client":{"addr":"10.0.0.9","port":5},"server":{"addr":"10.0.0.1","port":443},"netns":7}`
	changed := strings.Replace(closed, `"no_listener"`, `"checksum"`, 1)
	summary := `{"v":1,"type":"summary","duration_ms":10000,"counts":[{"cause":"no_listener","stage":"ingress","action":"reset","count":2}],` +
		`"seen":[],"ledger":[],"balanced":true}`
	for _, tt := range []struct {
		name  string
		lines []string
		want  uint64
	}{
		{"whole", []string{closed, closed, summary}, 0},
		{"one taken out", []string{closed, summary}, 1},
		{"all taken out", []string{summary}, 2},
		{"one more", []string{closed, closed, closed, summary}, 1},
		{"another cause", []string{closed, changed, summary}, 1},
	} {
		e := record(t, append([]string{`{"v":1,"type":"ready","time":"2026-11-22T04:55:00.000000000Z"}`}, tt.lines...)...)
		d := Diagnose(e)
		if e.Differs != tt.want || strings.Contains(d.Verdict,
			"contradicts itself") != (tt.want > 0) {
			t.Errorf("%s: differs by %d, want %d: %s", tt.name, e.Differs, tt.want,
				d.Verdict)
		}
		for _, f := range d.Findings {
			if tt.want > 0 && f.Confidence == event.ConfidenceProven {
				t.Errorf("%s: %s is proven", tt.name, f.ID)
			}
		}
	}
}
