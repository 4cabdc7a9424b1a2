// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// ruling is what netfilter did with SYNs, and where.
type ruling struct {
	kind         rulingKind
	netns        uint64
	hook, family string
	device       string // only where the hook is the device's
}

type rulingKind uint8

const (
	ruledOut   rulingKind = iota // dropped or rejected by a rule
	queuedAway                   // to a queue that nobody reads, or refused by its reader
	untracked                    // dropped by connection tracking itself
)

// firewall explains the n SYNs that netfilter killed before any listener: a finding for each thing
// that was done at each place.
func firewall(e *evidence.Evidence, n uint64) (out []*Found) {
	groups := make(map[ruling][]evidence.Death)
	var order []ruling
	rest := n
	put := func(r ruling, d evidence.Death, count uint64) {
		if count == 0 {
			return
		}
		if groups[r] == nil {
			order = append(order, r)
		}
		d.Count = count
		groups[r] = append(groups[r], d)
		rest -= min(rest, count)
	}
	tracked := make(map[uint64]uint64) // drops of connection tracking that are not yet given to a death
	for _, c := range e.Conntrack {
		tracked[c.NetNS] = c.Drops
	}
	for _, d := range e.Ingress {
		if d.Cause != event.CauseNetfilter ||
			d.NetNS == 0 { // which the rate limit held back
			continue
		}
		r := ruling{netns: d.NetNS, hook: d.Kernel.Hook, family: d.Kernel.Family}
		if r.hook == "ingress" || r.family != "" || strings.Contains(r.hook, "ingress") {
			r.device = d.Device
		}
		if evidence.Queued(d.Kernel) {
			r.kind = queuedAway
			put(r, d, d.Count)
			continue
		}
		if mayTrack(e, &d) {
			byTable := min(tracked[d.NetNS], d.Count)
			tracked[d.NetNS] -= byTable
			of := r
			of.kind = untracked
			put(of, d, byTable)
			d.Count -= byTable
		}
		put(r, d, d.Count)
	}
	for _, r := range order {
		out = append(out, ruled(e, r, groups[r]))
	}
	switch {
	case rest == 0:
	case len(out) == 1: // every one that was looked at
		out[0].Weight += rest
		out[0].saw("further SYNs that netfilter dropped, not looked at one by one", rest,
			"packets")
	default:
		out = append(out, ruled(e, ruling{}, []evidence.Death{{Cause: event.CauseNetfilter,
			Count: rest}}))
	}
	return out
}

// mayTrack reports whether connection tracking may have dropped it: at a hook where it is, and not
// in nftables' own rules, which newer kernels name (nft_do_chain, 6.7).
func mayTrack(e *evidence.Evidence, d *evidence.Death) bool {
	return d.Kernel.Refusal == "" && d.Kernel.Family == "" &&
		d.Kernel.Function != "nft_do_chain" &&
		slices.Contains([]string{"prerouting", "ingress or prerouting", "input",
			"postrouting"}, d.Kernel.Hook)
}

// ruled is the finding about what was done at one place.
func ruled(e *evidence.Evidence, r ruling, deaths []evidence.Death) *Found {
	info := event.CauseNetfilter.Info()
	var n, refused uint64
	var refusals []string
	for _, d := range deaths {
		n += d.Count
		if d.Kernel.Refusal != "" {
			refused += d.Count
			refusals = addOnce(refusals, d.Kernel.Refusal)
		}
	}
	f := newFound(event.FindingDroppedBeforeListener, n)
	f.Confidence, f.Owner, f.Because = event.ConfidenceProven, info.Owner, info.Explain
	f.Title = "SYNs die before the listener: " + info.Title
	f.saw("SYNs that died before any listener", n, "packets")
	f.saw("cause", info.Name, "")
	switch {
	case r.kind == untracked:
		f.byTable(e, r, n)
	case r.kind == queuedAway:
		f.byQueue(r, deaths)
	case refused == 0 && r != ruling{}:
		f.Title = "a firewall drops SYNs before the listener"
		f.Because = r.ruler() + ", or its chain's policy, drops them"
	case refused > 0:
		f.Title = "a firewall REJECTs SYNs before the listener (" + list(refusals) + ")"
		f.Because = r.ruler() + " rejects them: the clients are told so at once"
		f.saw("SYNs answered with "+list(refusals), refused, "packets")
		if quiet := n - refused; quiet > 0 {
			f.saw("SYNs dropped there without an answer", quiet, "packets")
			f.fix("ICMP errors are limited (net.ipv4.icmp_ratelimit, icmp_msgs_per_sec): a REJECT drops in silence what goes beyond")
		}
	}
	f.sawPlace(&deaths[0])
	f.sawHook(r, deaths)
	f.sawCount(e, r, n)
	if r.kind == ruledOut {
		f.fix(ruleAt(e, r, &deaths[0]))
	}
	return f
}

// ruler is whose rule it is: iptables has no chains of the families netdev and inet.
func (r ruling) ruler() string {
	if r.family == "netdev" || r.family == "inet" {
		return "a rule of nftables"
	}
	return "a rule of iptables or nftables"
}

// sawHook cites where on its way it was.
func (f *Found) sawHook(r ruling, deaths []evidence.Death) {
	for _, d := range deaths[:min(len(deaths), evidence.MaxPlaces)] {
		if d.Server.Addr.IsValid() {
			f.saw("SYNs to "+evidence.Where(event.Listener{Addr: d.Server.Addr,
				Port: d.Server.Port}), d.Count, "packets")
		}
	}
	if r.hook != "" {
		f.saw("netfilter hook", r.hook, "")
	}
	if strings.Contains(r.hook, " or ") {
		f.saw("how the hook is known", "inferred: the packet had no route yet", "")
	}
	if r.family != "" {
		f.saw("netfilter family", r.family, "")
	}
	for _, what := range []func(evidence.Death) (string, string){
		func(d evidence.Death) (string, string) {
			return "kernel function",
				d.Kernel.Function
		},
		func(d evidence.Death) (string, string) { return "kernel reason", d.Kernel.Reason },
	} {
		var told []string
		for _, d := range deaths {
			name, value := what(d)
			if value != "" && !slices.Contains(told, value) {
				told = append(told, value)
				f.saw(name, value, "")
			}
		}
	}
}

// sawCount says how the count is known, and what counters there are to compare it with.
func (f *Found) sawCount(e *evidence.Evidence, r ruling, n uint64) {
	var of uint64
	told := 0
	for _, rule := range e.Rules {
		if r.kind != ruledOut || rule.NetNS != r.netns || r.family != "" &&
			rule.Family != r.family {
			continue
		}
		of += rule.Packets
		if told++; told <= maxRules {
			f.saw(fmt.Sprintf("counter of the dropping rule in table %s %s, chain %s, handle %d", rule.Family, evidence.Said(rule.Table), evidence.Said(rule.Chain), rule.Handle),
				rule.Packets, "packets")
		}
	}
	switch {
	case r.kind == untracked:
		f.saw("how the count is known",
			"by drop events, and by connection tracking's own counter, which moved by "+comparedWith(e, r, n), "")
	case told == 0:
		f.saw("how the count is known",
			"by drop events alone: no counter of the kernel's was there to compare it with", "")
	case of == n:
		f.saw("how the count is known",
			"by drop events, and by the counters of dropping rules, which moved by as much", "")
	case of > n:
		f.saw("how the count is known",
			"by drop events; dropping rules counted "+advice.Many(of-n,
				"packet")+" more, other traffic or SYNs without an event", "")
	default:
		f.saw("how the count is known",
			"by drop events; rules without a counter, or policies, dropped at least "+evidence.Thousands(n-of)+" of them", "")
	}
}

// comparedWith says by how much connection tracking's counter differs from n.
func comparedWith(e *evidence.Evidence, r ruling, n uint64) string {
	i := slices.IndexFunc(e.Conntrack,
		func(c evidence.Conntrack) bool { return c.NetNS == r.netns })
	if more := e.Conntrack[i].Drops - n; more > 0 { // never fewer: see firewall
		return evidence.Thousands(more) + " more: other traffic, or SYNs without an event"
	}
	return "as much"
}

// maxRules bounds how many rules a finding names.
const maxRules = 5

// ruleAt says where to look for the rule, and by what command.
func ruleAt(e *evidence.Evidence, r ruling, d *evidence.Death) string {
	at := ""
	if r.hook != "" {
		at = " at hook " + r.hook
	}
	if r.family != "" {
		at += " of family " + r.family
	}
	if r.device != "" {
		at += ", device " + evidence.Said(r.device)
	}
	list := "nft -a list ruleset"
	if i := slices.IndexFunc(e.Rules,
		func(rule evidence.FirewallRule) bool { return rule.NetNS == r.netns }); i >= 0 {
		if rule := e.Rules[i]; evidence.Plain(rule.Table) && evidence.Plain(rule.Chain) {
			list = fmt.Sprintf("nft -a list chain %s %s %s", rule.Family, rule.Table,
				rule.Chain)
		}
	} else if r.family == "" {
		list += "; " + d.Enter.Command() + "iptables-save -c"
	}
	what := "the rule, or the chain's policy, that drops them"
	if d.Kernel.Refusal != "" {
		what = "the rule that rejects them" // which a policy cannot
	}
	return "change " + what + at + d.InSpace() + ": " + d.Enter.Command() + list
}

func (f *Found) byQueue(r ruling, deaths []evidence.Death) {
	verdict := deaths[0].Kernel.Function != "nf_queue"
	f.Title = "SYNs go to a netfilter queue (NFQUEUE) that no program reads, or that is full"
	f.Because = "a rule hands them to a queue that no program reads, or that is full"
	f.fix("start the program that reads the queue, or give the rule the flag bypass (--queue-bypass), so that packets pass without it",
		"see the queues that are open, packets that wait, packets dropped: "+deaths[0].Enter.Command()+"cat /proc/net/netfilter/nfnetlink_queue")
	if verdict {
		f.Title = "the program that reads a netfilter queue (NFQUEUE) refuses SYNs, or ended"
		f.Because = "a rule hands them to a queue, whose program dropped them, or ended while they waited"
		f.Fix = []string{"look at the program that reads the queue: its verdicts, its log"}
	}
}

// byTable is about n SYNs that connection tracking dropped itself, which no rule does.
func (f *Found) byTable(e *evidence.Evidence, r ruling, n uint64) {
	i := slices.IndexFunc(e.Conntrack,
		func(c evidence.Conntrack) bool { return c.NetNS == r.netns })
	c := e.Conntrack[i]
	if c.Drops != n { // it may have dropped others, and a rule these
		f.Confidence = event.ConfidenceLikely
	}
	f.Owner = "node"
	f.saw("packets that connection tracking dropped itself (drop of /proc/net/stat/nf_conntrack)", c.Drops, "packets")
	f.saw("net.netfilter.nf_conntrack_count", c.Count, "entries")
	f.saw("net.netfilter.nf_conntrack_max", c.Max, "entries")
	if c.InsertFailed > 0 {
		f.saw("of them since an entry could not be inserted (insert_failed)",
			c.InsertFailed, "packets")
	}
	if 2*c.InsertFailed >= c.Drops {
		f.Title = "connection tracking drops SYNs whose entry it cannot insert: NAT has no free port, or two packets raced"
		f.Because = "connection tracking could not insert their entry: NAT found no free port, or two packets of one flow raced"
		f.fix("give NAT more addresses or ports: SNAT to several addresses, a wider --to-source or net.ipv4.ip_local_port_range, random-fully",
			"reuse connections, so that fewer ports are taken at a time")
		return
	}
	f.Title = "the connection tracking table is full: SYNs are dropped before the listener"
	f.Because = fmt.Sprintf("the connection tracking table is full (net.netfilter.nf_conntrack_max is %d)", c.Max)
	if uint64(c.Count) < uint64(c.Max) {
		f.Because = fmt.Sprintf("the connection tracking table was full (net.netfilter.nf_conntrack_max is %d; at the end it held %d)", c.Max, c.Count)
	}
	more := 2 * uint64(c.Max)
	f.turn(event.Knob{Name: "net.netfilter.nf_conntrack_max", Now: fmt.Sprint(c.Max),
		Try:   fmt.Sprint(more),
		Where: "/etc/sysctl.d/ of the machine's first network namespace", Why: "it is of all its network namespaces together"})
	now := fmt.Sprintf(
		"until the next start, there: sysctl -w net.netfilter.nf_conntrack_max=%d", more)
	if buckets := more / 4; c.Buckets > 0 &&
		buckets > uint64(c.Buckets) { // longer chains are slower for all
		now += fmt.Sprintf("; echo %d > /sys/module/nf_conntrack/parameters/hashsize",
			buckets)
	}
	f.fix(now,
		"or keep entries for a shorter time (net.netfilter.nf_conntrack_tcp_timeout_*), or take the port out of tracking (notrack in the raw table)")
}

// held lists the queues in which packets wait.
func waitingQueues(e *evidence.Evidence) []evidence.PacketQueue {
	return slices.DeleteFunc(slices.Clone(e.Queues),
		func(q evidence.PacketQueue) bool { return q.Waiting == 0 })
}

// sawQueued reports packets that wait in queues of netfilter's: neither dropped nor arrived.
func (f *Found) sawQueued(e *evidence.Evidence) {
	for _, q := range evidence.Bound(waitingQueues(e), maxFrames) {
		reader := "netlink port " + fmt.Sprint(q.PortID)
		if q.Comm != "" {
			reader += fmt.Sprintf(" (%s, if that is its process)",
				evidence.Said(q.Comm))
		}
		f.saw(fmt.Sprintf("packets that wait in netfilter queue %d for a verdict of %s",
			q.Number, reader), q.Waiting, "packets")
		f.Because += fmt.Sprintf("; %s in netfilter queue %d (NFQUEUE) for the verdict of a program", wait(q.Waiting), q.Number)
		f.fix(fmt.Sprintf("look at the program that reads netfilter queue %d, %s: it holds packets without a verdict", q.Number, reader))
	}
}

func wait(n uint64) string {
	if n == 1 {
		return "1 packet waits"
	}
	return evidence.Thousands(n) + " packets wait"
}
