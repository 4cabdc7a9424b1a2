// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/probetest"
	"github.com/synspy/synspy/internal/probe/reason"
)

// TestBlind says what is not told for want of something, besides what the kernel's plan, which
// TestKernelPlans holds, does not tell anyway.
func TestBlind(t *testing.T) {
	refuse := func(hook string) func(*facts.Facts) {
		return func(f *facts.Facts) {
			if f.RefusedHooks == nil {
				f.RefusedHooks = make(map[facts.Attempt]error)
			}
			for _, backend := range []string{facts.Trampoline, facts.Kprobe, facts.Tracepoint, facts.Iterator} {
				f.RefusedHooks[facts.Attempt{Hook: hook, Backend: backend}] = probetest.ErrRefused
			}
		}
	}
	withoutReason := func(names ...string) func(*facts.Facts) {
		return func(f *facts.Facts) {
			for _, name := range names {
				delete(f.Reasons, reason.Prefix+name)
			}
		}
	}
	gone := []string{"listener_closed at ack: nothing", "listener_closed at ack (while others listen on its port): kernel_other",
		"bad_handshake_ack at ack (that no handshake waits for): kernel_other"}
	for _, test := range []struct {
		name    string
		kernel  string
		backend string
		change  func(*facts.Facts)
		want    []string
	}{
		{"closed listeners refused", "6.12", facts.Auto, refuse(facts.GoneFunction), gone},
		{"closed listeners refused, by tracepoints", "6.12", facts.Tracepoint, refuse(facts.GoneEvent), gone},
		{"a security module, by tracepoints", "6.12", facts.Tracepoint, func(f *facts.Facts) { f.LSM = true },
			[]string{"denied_by_lsm: kernel_other"}},
		{"a security module", "6.12", facts.Auto, func(f *facts.Facts) { f.LSM = true }, nil},
		{"a security module's hook refused", "6.12", facts.Auto, func(f *facts.Facts) { f.LSM = true; refuse("security_inet_conn_request")(f) },
			[]string{"denied_by_lsm: kernel_other"}},
		{"BPF may refuse later", "6.12", facts.Auto, func(f *facts.Facts) { f.LaterLSM = true },
			[]string{"denied_by_lsm (by a BPF program that is loaded later): kernel_other"}},
		{"SYNs over IPv6 refused", "6.12", facts.Auto, refuse("tcp_v6_conn_request"), []string{
			"accept_queue_full at syn (IPv6): unattributed", "syn_queue_full at syn (IPv6): unattributed",
			"fastopen_queue_full at syn (IPv6): unattributed", "syn_backlog_reserve at syn (IPv6): unattributed",
			"no_route_back at syn (IPv6): unattributed", "denied_by_lsm at syn (IPv6): unattributed",
			"bad_syn at syn (IPv6): unattributed"}},
		{"cookies refused", "6.12", facts.Auto, refuse("cookie_v4_check"), []string{
			"accept_queue_full at ack (SYN cookies over IPv4): unattributed", "cookie_invalid at ack (SYN cookies over IPv4): unattributed",
			"no_route_back at ack (SYN cookies over IPv4): unattributed", "denied_by_lsm at ack (SYN cookies over IPv4): unattributed"}},
		{"ICMP errors refused", "6.12", facts.Auto, refuse("tcp_req_err"), []string{"icmp_error at ack: unattributed"}},
		{"resets refused", "6.12", facts.Auto, refuse("tcp_send_reset"), []string{"listener_closed at close: nothing"}},
		{"resets refused, by tracepoints", "6.12", facts.Tracepoint, refuse("tcp_send_reset"), []string{
			"listener_closed at close: nothing", "bad_handshake_ack at ack (answered by an RST): bad_handshake_ack"}},
		{"resets refused, 6.1 by tracepoints", "6.1", facts.Tracepoint, refuse("tcp_send_reset"), []string{
			"listener_closed at close: nothing", "bad_handshake_ack at ack (answered by an RST): nothing"}},
		{"listen() refused", "6.12", facts.Auto, func(f *facts.Facts) { refuse(facts.ListenFunction)(f); refuse(facts.ListenHook)(f) }, []string{"listener_closed at close: nothing"}},
		{"timers refused", "6.12", facts.Auto, refuse(facts.RequestTimer),
			[]string{"handshake_expired at timer: nothing", "listener_closed at timer: nothing"}},
		{"timers refused, by tracepoints", "6.12", facts.Tracepoint, refuse("timer_expire_exit"), []string{
			"handshake_expired at timer: nothing", "listener_closed at timer: nothing"}},
		{"TIME_WAIT refused", "6.1", facts.Kprobe, refuse("tcp_timewait_state_process"), []string{
			"time_wait at ingress: kernel_other"}},
		{"RSTs over IPv6 refused", "5.10", facts.Kprobe, refuse("tcp_v6_send_reset"), []string{
			"no_listener at ingress (IPv6): kernel_other"}},
		{"no routes counted", "6.12", facts.Auto, func(f *facts.Facts) { f.OutNoRoutes = 0 }, []string{"no_route_back: kernel_other"}},
		{"reasons with other names", "6.12", facts.Tracepoint, withoutReason("NO_SOCKET", "SOCKET_FILTER", "TCP_FLAGS", "CPU_BACKLOG"), []string{
			"no_listener at ingress: kernel_other", "socket_filter at syn: kernel_other",
			"socket_filter at ack: bad_handshake_ack", "bad_syn at syn (with FIN): kernel_other", "cpu_backlog at ingress: nothing"}},
		{"one part of two", "6.12", facts.Auto, withoutReason("IP_CSUM", "XFRM_POLICY"),
			[]string{"checksum at ingress (of the IP header): kernel_other", "policy at ingress (IPsec): kernel_other"}},
		{"both parts", "6.12", facts.Auto, withoutReason("TCP_MINTTL", "XFRM_POLICY"), []string{"policy at ingress: kernel_other"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			here := probetest.KernelFacts(t, test.kernel)
			whole, err := Make(here, test.backend)
			if err != nil {
				t.Fatal(err)
			}
			test.change(here)
			plan, err := Make(here, test.backend)
			if err != nil {
				t.Fatal(err)
			}
			want := append(blindOf(whole), test.want...)
			got := blindOf(plan)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("blind:\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
			for _, hook := range plan.Hooks {
				for _, b := range hook.Blind {
					if _, cause := event.ParseCause(b.Shows); b.Why == "" || !cause && b.Shows != event.ShowsNothing && b.Shows != event.ShowsUnattributed {
						t.Errorf("%s: %+v", hook.Name, b)
					}
				}
			}
		})
	}
}

// TestBlindWithoutFrees: without kernel symbols kfree_skb tells nothing, and what it would have
// told shows as nothing.
func TestBlindWithoutFrees(t *testing.T) {
	here := probetest.KernelFacts(t, "6.12")
	here.Code, here.CodeErr = nil, kernel.ErrSymbolsHidden
	plan, err := Make(here, facts.Auto)
	if err != nil {
		t.Fatal(err)
	}
	shows := make(map[string]string)
	for _, h := range plan.Hooks {
		for _, b := range h.Blind {
			shows[b.Cause.String()+b.Stage.String()] += b.Shows
		}
	}
	for o := range event.NumOutcomes {
		b := o.Branch()
		got := shows[b.Cause.String()+b.Stage.String()]
		if elsewhere := b.Cause == event.CauseKernelOther && b.Stage != event.StageIngress; elsewhere {
			continue // of many kinds, most of which move counters
		}
		if b.Needs&event.NeedFrees != 0 && got != event.ShowsNothing {
			t.Errorf("%s at %s shows as %q", b.Cause, b.Stage, got)
		}
	}
}

// TestBlindReasons: without a reason that the kernel side tells a cause by, the plan says that it
// cannot be told.
func TestBlindReasons(t *testing.T) {
	told := 0
	for _, r := range event.Reasons() {
		for _, o := range []event.Outcome{r.Outcomes.Syn, r.Outcomes.Ack} {
			branch := o.Branch()
			if branch.Needs&event.NeedReason == 0 {
				continue
			}
			told++
			here := probetest.KernelFacts(t, "newest")
			for name := range here.Reasons {
				short := strings.TrimPrefix(name, reason.Prefix)
				if event.OutcomesOf(short) == r.Outcomes {
					delete(here.Reasons, name)
				}
			}
			plan, err := Make(here, facts.Auto)
			if err != nil {
				t.Fatal(err)
			}
			if !plan.blindTo(branch.Cause, branch.Stage) {
				t.Errorf("%s at %s without %s", branch.Cause, branch.Stage, r.Name)
			}
		}
	}
	if told < 20 {
		t.Errorf("%d reasons tell a cause", told)
	}
}

// blindTo reports whether a plan says of some hook that it does not tell that.
func (p *Plan) blindTo(cause event.Cause, stage event.Stage) bool {
	of := func(b event.Blind) bool { return b.Of(cause, stage) }
	blind := func(h Hook) bool { return slices.ContainsFunc(h.Blind, of) }
	return slices.ContainsFunc(p.Hooks, blind)
}

// TestNeeds: each branch says what tells it, and where its counters move; and what it needs is
// looked for in a plan, but what every kernel tells.
func TestNeeds(t *testing.T) {
	v := view{facts: probetest.KernelFacts(t, "newest"), plan: &Plan{}}
	judged := event.NeedPacket | event.NeedReturn | event.NeedFrees | event.NeedReason |
		event.NeedSocket
	for _, f := range facts.ListenPath() {
		judged |= f.At
	}
	for _, l := range slices.Concat(v.lacks(), v.unseen()) {
		judged |= l.need
	}
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		branch := o.Branch()
		switch missing := branch.Needs &^ judged; {
		case branch.Needs == 0:
			t.Errorf("outcome %d needs nothing: say in outcome.go what tells it", o)
		case (branch.At() != 0) != (len(branch.Counters) > 0):
			t.Errorf("outcome %d moves %v, and not where", o, o.CounterNames())
		case missing != 0:
			t.Errorf("outcome %d: blind.go asks no plan for need %b", o, missing)
		}
	}
}
