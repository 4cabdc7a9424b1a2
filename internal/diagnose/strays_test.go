// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// unsent makes n of the handshakes die at their first timer.
func unsent(l evidence.Listener, n uint64) evidence.Listener {
	l = died1(l, event.CauseHandshakeExpired, event.StageTimer, event.ActionDropped, n)
	l.Unsent, l.Syns = &n, &n
	l.Sysctls.SynackRetries = ptr(uint32(5))
	return l
}

// strayed adds n SYN-ACKs of the listener that were freed.
func strayed(e *evidence.Evidence, n uint64, s evidence.Stray) *evidence.Evidence {
	s.Answer, s.Count, s.NetNS = !s.Segment, n, e.Listeners[0].ID.NetNS
	s.From = s.NetNS
	s.Server = event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"),
		Port: e.Listeners[0].ID.Port}
	e.Strays, e.StraysMs = append(e.Strays, s), ptr(uint64(8000))
	return e
}

// TestStrays holds the sentences to what was seen: nothing was sent that was dropped here, and who
// dropped it is named.
func TestStrays(t *testing.T) {
	dead := func() *evidence.Evidence {
		return evidenceOf(unsent(halfOpened(healthyListener(),
			0, nil, 0), 60))
	}
	netfilter := event.Kernel{Function: "nft_do_chain", Reason: "NETFILTER_DROP",
		Hook: "output"}
	elsewhere := strayed(dead(), 120,
		evidence.Stray{Kernel: event.Kernel{Function: "nft_do_chain",
			Reason: "NETFILTER_DROP", Hook: "forward"}})
	elsewhere.Strays[0].NetNS++
	another := strayed(evidenceOf(finishing(healthyListener(), 0)), 120,
		evidence.Stray{Kernel: netfilter}) // the same address and port in another namespace
	another.Strays[0].NetNS++
	another.Strays[0].From++
	sent := evidenceOf(halfOpened(healthyListener(), 400, nil, 0))
	sent.StraysMs = ptr(uint64(8000))
	left := func() *evidence.Evidence {
		return evidenceOf(halfOpened(healthyListener(), 400,
			ptr(uint64(0)), 0))
	}
	invalid := evidence.Stray{Segment: true, Device: "eth0",
		Kernel: event.Kernel{Function: "nft_do_chain", Reason: "NETFILTER_DROP",
			Hook: "input"}}
	router := strayed(left(), 300, invalid)
	router.Strays[0].NetNS++
	oneRetry := dead()
	oneRetry.Listeners[0].Sysctls.SynackRetries = ptr(uint32(1))
	for _, c := range []struct {
		name  string
		e     *evidence.Evidence
		want  []string // severity and id
		says  []string
		not   []string
		owner string
	}{
		{"output", strayed(dead(), 120, evidence.Stray{Kernel: netfilter}),
			[]string{"cause return_path_lost"},
			[]string{"dropped on the way out here, by netfilter at output",
				"given up by a timer"}, []string{"were sent",
				"tcp_synack_retries ran out", "expired unanswered",
				"asymmetric"}, "platform"},
		{"forward in another namespace", elsewhere, []string{"cause return_path_lost"},
			[]string{"netfilter at forward in network namespace"},
			[]string{"were sent"}, "platform"},
		{"those of another namespace's listener", another, []string{"note healthy"}, nil,
			[]string{"way out"}, ""},
		{"not seen by whom", dead(), []string{"cause return_path_lost"},
			[]string{"could not send SYN-ACKs again"}, []string{"were sent",
				"asymmetric"}, "platform"},
		{"a sysctl that allows one retry", oneRetry, []string{"cause return_path_lost"},
			[]string{"expired unanswered"}, []string{"given up by a timer"}, "network"},
		{"a queue nobody reads", strayed(dead(), 120,
			evidence.Stray{Kernel: event.Kernel{Function: "nf_queue",
				Hook: "output"}}), []string{"cause return_path_lost"},
			[]string{"netfilter at output, by a queue that no program reads"},
			[]string{"were sent"}, "platform"},
		{"cgroup", strayed(dead(), 120,
			evidence.Stray{Kernel: event.Kernel{Function: "ip_finish_output",
				Reason: "BPF_CGROUP_EGRESS"}}), []string{"cause return_path_lost"},
			[]string{"cgroup's egress program",
				"IPAddressDeny"}, []string{"were sent"}, "platform"},
		{"tc", strayed(dead(), 120, evidence.Stray{Device: "eth0",
			Kernel: event.Kernel{Function: "__dev_queue_xmit",
				Reason: "TC_EGRESS"}}), []string{"cause return_path_lost"},
			[]string{"tc at egress of eth0"}, []string{"were sent"}, "platform"},
		{"neighbour", strayed(evidenceOf(died1(halfOpened(healthyListener(), 300, nil, 0),
			event.CauseICMPError, event.StageAck, event.ActionDropped, 40)), 140,
			evidence.Stray{Device: "eth0",
				Kernel: event.Kernel{Function: "neigh_invalidate",
					Reason: "NEIGH_FAILED"}}), []string{"cause return_path_lost", "contributing other_drops"},
			[]string{"neighbour table of eth0",
				"this host itself"}, []string{"were sent",
				"find who sends"}, "network"},
		{"ACKs at input", strayed(left(), 300, invalid), []string{"cause return_path_lost"},
			[]string{"ACKs of clients' handshakes were dropped here, by netfilter at input", "packets to the listener's port", "nft -a list ruleset"},
			[]string{"harmless", "asymmetric", "way out",
				"the clients left"}, "platform"},
		{"ACKs in a router's namespace", router, []string{"cause return_path_lost"},
			[]string{"on the way to the listener"}, []string{"the clients left"},
			"platform"},
		{"ACKs at tc", strayed(left(), 300, evidence.Stray{Segment: true, Device: "eth0",
			Kernel: event.Kernel{Reason: "TC_INGRESS"}}), []string{
			"cause return_path_lost"},
			[]string{"tc at ingress of eth0",
				"tc filter show dev eth0 ingress"}, nil, "platform"},
		{"too few segments to explain it", strayed(left(), 3, invalid),
			[]string{"contributing client_gave_up"}, []string{"the clients left"}, nil,
			"client"},
		{"segments of connections of a listener that is well",
			strayed(evidenceOf(finishing(healthyListener(), 0)), 300,
				invalid), []string{"note healthy"}, nil, []string{"ACKs"}, ""},
		{"nothing dropped here", sent, []string{"cause return_path_lost"},
			[]string{"none was seen to be dropped on the way out here"}, nil,
			"network"},
		{"a client of this host has no socket any more",
			strayed(evidenceOf(halfOpened(healthyListener(), 2, nil, 1000)), 2,
				evidence.Stray{Kernel: event.Kernel{Function: "tcp_v4_rcv",
					Reason: "NO_SOCKET"}}), []string{"note healthy"}, nil, []string{"way out"}, ""},
	} {
		d := Diagnose(c.e)
		var got []string
		text := d.Verdict
		for _, f := range d.Findings {
			got = append(got, string(f.Severity)+" "+string(f.ID))
			text += " " + f.Title + " " + strings.Join(f.Fix, " ")
			for _, ev := range f.Evidence {
				text += " " + ev.What
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", c.name, got, c.want)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(text, s) {
				t.Errorf("%s: does not say %q: %s", c.name, s, text)
			}
		}
		for _, s := range c.not {
			if strings.Contains(text, s) {
				t.Errorf("%s: says %q: %s", c.name, s, text)
			}
		}
		if c.owner != "" && d.Findings[0].Owner != c.owner {
			t.Errorf("%s: for %s, want %s", c.name, d.Findings[0].Owner, c.owner)
		}
	}
}

// TestFrames: frames for another host are told where no SYN arrived.
func TestFrames(t *testing.T) {
	e := evidenceOf(listener(128, rate(10, 0), rate(10, 100)))
	e.Strays = []evidence.Stray{{Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"),
		Port: 443}, MAC: "02:00:00:00:00:99", OwnMAC: "02:00:00:00:00:01",
		Device: "eth0", Count: 40}}
	d := Diagnose(e)
	if len(d.Findings) != 1 || d.Findings[0].ID != event.FindingNoSynArrived ||
		!strings.Contains(d.Verdict,
			"in frames for another MAC address (02:00:00:00:00:99)") {
		t.Errorf("frames for another host: %s %+v", d.Verdict, d.Findings)
	}
}
