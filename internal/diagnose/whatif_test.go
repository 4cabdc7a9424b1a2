package diagnose

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestWhatIfHolds plays windows again with what the replay of their own timeline advised: the advice is made from what a
// timeline shows, not from what the window was made of.
func TestWhatIfHolds(t *testing.T) {
	advised := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		pace := 500 + r.Float64()*2000
		arrivals, capacity := rate(10, 20+r.Float64()*pace*0.6), rate(10, pace)
		for range 1 + r.IntN(4) {
			at := r.IntN(9000)
			if r.IntN(2) == 0 {
				during(arrivals, at, at+100+r.IntN(200), plus(r.Uint64N(300)))
			} else {
				during(capacity, at, at+r.IntN(600), none)
			}
		}
		limit := 8 + r.Uint32N(120)
		l := listener(limit, arrivals, capacity)
		w := whatIf(&l)
		if l.dropped(event.CauseAcceptQueueFull) == 0 {
			if w != nil {
				t.Fatalf("seed %d: nothing dropped, and advice: %s", seed, w.Says)
			}
			continue
		}
		if len(w.Rows) == 0 || !w.Rows[0].Present || w.Rows[0].Limit != limit {
			t.Fatalf("seed %d: the first row is not the present: %+v", seed, w.Rows)
		}
		need, ok := helps(w)
		if !ok {
			continue
		}
		advised++
		again := listener(need, arrivals, capacity)
		if n := again.dropped(event.CauseAcceptQueueFull); n > w.Observed/50 {
			t.Errorf("seed %d: limit %d was advised instead of %d, which dropped %d; it drops %d", seed, need, limit, w.Observed, n)
		}
	}
	if advised < 50 {
		t.Errorf("only %d windows had an advice", advised)
	}
}

func TestWhatIfSays(t *testing.T) {
	for _, tt := range []struct {
		name  string
		l     Listener
		limit uint32 // zero: none helps
		says  string
	}{
		{"a burst", burstWindow(128), 511, "a limit of 511 instead of 128 would have dropped 0 of 800 handshakes"},
		{"a tiny backlog", tinyWindow(2), 16, "a limit of 16 instead of 2"},
		{"a standstill", blockedWindow(16), 0, "no limit helps: the accept loop stands still for 5 s"},
		{"overload", listener(128, rate(10, 300), rate(10, 200)), 0, "no limit helps: connections arrive faster than they are accepted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := whatIf(&tt.l)
			if w == nil || !strings.HasPrefix(w.Says, tt.says) || value(w.Limit) != tt.limit || len(w.Assumes) == 0 {
				t.Errorf("got %+v", w)
			}
		})
	}
	for name, change := range map[string]func(*Listener){
		"nothing dropped":      func(l *Listener) { l.Counts = nil },
		"no timeline":          func(l *Listener) { l.Timeline = nil },
		"accepts not counted":  func(l *Listener) { l.Timeline[3].Accepts = nil },
		"arrivals not counted": func(l *Listener) { l.Timeline[3].Arrivals = nil },
		"no limit known": func(l *Listener) {
			l.ID.AcceptQueue = nil
			for i := range l.Timeline {
				l.Timeline[i].AcceptQueue = nil
			}
		},
	} {
		l := burstWindow(128)
		change(&l)
		if w := whatIf(&l); w != nil {
			t.Errorf("%s: %+v", name, w)
		}
	}
}

// TestRetriesUnknown: without knowing which SYNs came again, each stands for itself, and it is said.
func TestRetriesUnknown(t *testing.T) {
	l := burstWindow(128)
	for i := range l.Timeline {
		l.Timeline[i].Retries = nil
	}
	if w := whatIf(&l); !strings.Contains(strings.Join(w.Assumes, "; "), "which came again is not known") {
		t.Errorf("assumes %q", w.Assumes)
	}
}

func TestTimeline(t *testing.T) {
	l := throttledWindow(2000, 7000)
	if got := timeline(&l); got.StepMs != stepMs || len(got.Points) != 200 || got.Points[39].Throttled || !got.Points[40].Throttled || got.Points[140].Throttled {
		t.Errorf("%d points of %d ms, throttled %v %v %v", len(got.Points), got.StepMs, got.Points[39].Throttled, got.Points[40].Throttled, got.Points[140].Throttled)
	}
	l = listener(16, rate(150, 100), during(rate(150, 2000), 2000, 7000, none))
	got := timeline(&l)
	var drops uint64
	longest := uint32(0)
	for _, p := range got.Points {
		drops += *p.Drops
		longest = max(longest, p.AcceptQueue.Len)
	}
	if len(got.Points) > event.MaxTimelinePoints || got.StepMs != 3*stepMs || drops != l.dropped(event.CauseAcceptQueueFull) || longest != 17 {
		t.Errorf("%d points of %d ms with %d drops, longest %d", len(got.Points), got.StepMs, drops, longest)
	}
}

func TestKnobs(t *testing.T) {
	l := tinyWindow(2)
	for _, tt := range []struct {
		name string
		p    event.Process
		k    func([]event.Process) event.Knob
		want event.Knob
	}{
		{"nginx", event.Process{Comm: "nginx"}, func(p []event.Process) event.Knob { return listenKnob(&l, p, 511, "w") },
			event.Knob{Name: "the backlog of listen()", Now: "2", Try: "511", Where: "nginx.conf: listen ... backlog=511", Why: "w"}},
		{"pod's sysctl", event.Process{Pod: &event.Pod{Namespace: "prod", Name: "api"}}, func(p []event.Process) event.Knob {
			return sysctlKnob("net.core.somaxconn", nil, 511, p, "w")
		}, event.Knob{Name: "net.core.somaxconn", Try: "511", Where: "securityContext.sysctls of pod prod/api (the node must allow it)", Why: "w"}},
		{"pod's quota", event.Process{Pod: &event.Pod{Namespace: "prod", Name: "api", Container: "app"}}, func(p []event.Process) event.Knob {
			return quotaKnob(CPU{QuotaUs: ptr(uint64(50000)), PeriodUs: ptr(uint64(100000))}, p, "w")
		}, event.Knob{Name: "resources.limits.cpu", Now: "0.5", Try: "1", Where: "the spec of pod prod/api, container app", Why: "w"}},
		{"unit's quota", event.Process{}, func(p []event.Process) event.Knob {
			return quotaKnob(CPU{Cgroup: event.Cgroup{Path: "/system.slice/web.service"}, QuotaUs: ptr(uint64(20000)), PeriodUs: ptr(uint64(100000))}, p, "w")
		}, event.Knob{Name: "CPUQuota=", Now: "20%", Try: "40%", Where: "unit web.service", Why: "w"}},
		{"cgroup's quota", event.Process{}, func(p []event.Process) event.Knob { return quotaKnob(CPU{Cgroup: event.Cgroup{Path: "/lab"}}, p, "w") },
			event.Knob{Name: "cpu.max", Try: "max", Where: "/sys/fs/cgroup/lab/cpu.max", Why: "w"}},
	} {
		if got := tt.k([]event.Process{tt.p}); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
