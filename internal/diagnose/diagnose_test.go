// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

type diagnoseCase struct {
	name string
	e    *evidence.Evidence
	want []string
}

// cases are windows with all that is to be found in them, in order: severity and id. Next to each
// finding stand windows that look like it and are not.
var cases = []diagnoseCase{
	// Behaviour of the threads.
	{"the loop sleeps", evidenceOf(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
		inPoll))),
		[]string{"cause accept_loop_blocked"}},
	{"one of its threads was never seen to accept",
		evidenceOf(thread(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
			inPoll)), false, always(inPoll))),
		[]string{"cause accept_loop_blocked"}},
	{"it sleeps 0.4 s, and a larger queue had held the rest", evidenceOf(thread(
		listener(16, rate(10, 100), during(rate(10, 2000), 2000, 2400,
			none)), true, between(2000, 2400, inSleep, inPoll))),
		[]string{"cause accept_loop_blocked", "contributing backlog_too_small"}},
	{"asleep in something that is not known", evidenceOf(thread(blockedWindow(16), true,
		between(2000, 7000, unknowing, inPoll))),
		[]string{"cause accept_loop_blocked"}},
	{"asleep in poll that a signal restarted", evidenceOf(thread(blockedWindow(16), true,
		always(evidence.Sample{State: "S", Syscall: "restart_syscall",
			Kernel: []string{"do_poll.constprop.0", "do_sys_poll+0x1"}}))),
		[]string{"cause no_acceptor"}},
	{"idle in poll over a full queue for a part of the window, after a jump", evidenceOf(thread(
		listener(4, during(rate(8, 0), 1000, 1800, plus(4)), during(rate(8, 10), 1500, 7500,
			func(uint64) uint64 { return 0 })), true, always(inPoll))),
		[]string{"cause no_acceptor", "contributing connection_burst"}},
	{"asleep in accept() of another socket",
		evidenceOf(thread(listener(4, during(rate(8, 10), 0, 500, plus(1)), rate(8, 0)),
			true, always(inAccept))),
		[]string{"cause accept_loop_blocked"}},
	{"idle in poll over a full queue, and another thread, which may be the one that accepts, is asleep", evidenceOf(thread(thread(
		listener(4, during(rate(8, 0), 1000, 1800, plus(4)), during(rate(8, 10), 1500, 7500,
			func(uint64) uint64 {
				return 0
			})), true, always(inPoll)), true, always(inSleep))),
		[]string{"cause accept_loop_blocked", "contributing connection_burst"}},
	{"idle in poll over a full queue",
		evidenceOf(thread(listener(16, rate(10, 100), rate(10, 0)), true, always(inPoll))),
		[]string{"cause no_acceptor"}},
	{"who accepted has ended, and its child has the socket open", evidenceOf(inherited()),
		[]string{"cause no_acceptor"}},
	{"one of the pool sleeps, another seems ready, and nobody accepts",
		evidenceOf(thread(thread(blockedWindow(16), true, always(inSleep)), true,
			always(inPoll))),
		[]string{"cause accept_loop_blocked"}},
	{"one of the pool sleeps, and another accepts all the while",
		evidenceOf(thread(thread(slowWindow(), true, always(inSleep)), true,
			always(inPoll))),
		[]string{"cause accept_rate_exceeded"}},
	{"a goroutine accepts, and sleeps", evidenceOf(thread(thread(blockedWindow(16), false,
		always(inGoPoll)), false, always(parked))),
		[]string{"cause accept_loop_blocked"}},
	{"the same, and nothing is known of the threads but that they were ready to run",
		evidenceOf(thread(thread(blockedWindow(16), false, always(inGoPoll)), false,
			always(evidence.Sample{State: "R"}))), []string{"cause other_drops"}},
	{"a goroutine accepts, and others compute",
		evidenceOf(thread(thread(blockedWindow(16), false, always(inGoPoll)), false,
			byTurns(0))),
		[]string{"cause other_drops"}},
	{"two threads may accept, and compute", evidenceOf(thread(thread(blockedWindow(16), false,
		always(running)), false, always(running))),
		[]string{"cause other_drops"}},
	{"workers are busy elsewhere, their master idles in an epoll without the listener",
		evidenceOf(prefork(elsewhereInPoll, event.RoleHolder, inSleep, inSleep, inSleep)),
		[]string{"cause accept_loop_blocked"}},
	{"workers are busy elsewhere, their master idles in select",
		evidenceOf(prefork(inSelect, event.RoleAcceptor, inSleep, inSleep, inSleep)),
		[]string{"cause accept_loop_blocked"}},
	{"those of the workers that were looked at sleep, and others may not",
		evidenceOf(more(thread(thread(blockedWindow(16), false, always(inSleep)), false,
			always(inSleep)))),
		[]string{"cause other_drops"}},
	{"workers that compute, and an idle master", evidenceOf(prefork(elsewhereInPoll,
		event.RoleHolder, running, running, running)),
		[]string{"cause accept_loop_busy"}},
	{"two of three workers sleep, and the third has the listener in its epoll: it may accept",
		evidenceOf(prefork(elsewhereInPoll, event.RoleAcceptor, inSleep, inSleep,
			readyInPoll)),
		[]string{"cause accept_loop_blocked"}},
	{"an event loop alone, which has taken the listener out of its epoll",
		evidenceOf(single(thread(listener(16, rate(10, 100), during(rate(10, 2000), 2000,
			7000, none)), true,
			between(2000, 7000, elsewhereInPoll,
				readyInPoll)))), []string{"cause no_acceptor"}},
	{"Go's idle threads are not the loop", evidenceOf(thread(thread(blockedWindow(16), true,
		between(2000, 7000, computing, inPoll)), true,
		always(evidence.Sample{State: "S", Syscall: "futex", User: []string{"runtime.futex",
			"runtime.stopm"}}))),
		[]string{"cause accept_loop_busy"}},
	{"asleep in select for something else", evidenceOf(thread(blockedWindow(16), true,
		between(2000, 7000, inSelect, inPoll))),
		[]string{"cause accept_loop_blocked"}},
	{"in select while it is its turn now and then",
		evidenceOf(thread(listener(16, rate(10, 200), rate(10, 100)), true,
			always(inSelect))),
		[]string{"cause accept_rate_exceeded"}},
	{"a helper waits in epoll while the loop computes",
		evidenceOf(thread(thread(slowWindow(), false, always(waitingAside)), false,
			always(running))),
		[]string{"cause accept_loop_busy"}},
	{"two threads compute, and either may accept",
		evidenceOf(thread(thread(slowWindow(), false, always(running)), false,
			always(running))),
		[]string{"cause accept_rate_exceeded"}},
	{"a helper reads while the loop sleeps",
		evidenceOf(thread(thread(slowWindow(), false, always(inRead)), false,
			always(inSleepBetween))),
		[]string{"cause accept_loop_blocked"}},
	{"Go's threads compute by turns while another polls",
		evidenceOf(thread(thread(thread(slowWindow(), true, always(waitingAside)),
			false, byTurns(0)), false, byTurns(1))),
		[]string{"cause accept_loop_busy"}},
	{"a process of several threads of which nothing is known",
		evidenceOf(thread(thread(blockedWindow(16), false, always(inSleep)), false,
			always(inSleep))),
		[]string{"cause accept_loop_blocked"}},
	{"the loop computes", evidenceOf(thread(blockedWindow(16), true, between(2000, 7000,
		computing, inPoll))),
		[]string{"cause accept_loop_busy"}},
	{"it computes all the time and accepts steadily",
		evidenceOf(thread(listener(16, rate(10, 200), rate(10, 100)), true,
			always(computing))),
		[]string{"cause accept_loop_busy"}},
	{"ran all the time, without a profile", evidenceOf(thread(blockedWindow(16), true,
		between(2000, 7000, running, inPoll))),
		[]string{"cause accept_loop_busy"}},
	{"only ready to run in the samples", evidenceOf(thread(blockedWindow(16), true,
		between(2000, 7000, evidence.Sample{State: "R"}, inPoll))),
		[]string{"cause other_drops"}},
	{"it computes before the queue fills", evidenceOf(thread(blockedWindow(16), true,
		between(0, 2000, computing, inSleep))),
		[]string{"cause accept_loop_blocked"}},
	{"throttled while it is full", evidenceOf(throttledWindow(2000, 7000)),
		[]string{"cause cpu_throttled"}},
	{"throttled for a moment of every period", evidenceOf(throttled(throttledWindow(0, 10000),
		120)),
		[]string{"cause accept_loop_blocked"}},
	{"throttled at another time", evidenceOf(throttledWindow(7500, 9500)),
		[]string{"cause accept_loop_blocked"}},
	{"ready to run without a CPU", evidenceOf(thread(blockedWindow(16), true,
		between(2000, 7000, starving, inPoll))),
		[]string{"cause cpu_starved"}},
	{"throttled and so without a CPU", evidenceOf(thread(throttledWindow(2000, 7000), true,
		between(2000, 7000, starving, inPoll))),
		[]string{"cause cpu_throttled"}},
	{"stopped by a signal", evidenceOf(thread(blockedWindow(16), true, between(2000, 7000,
		stopped, inPoll))),
		[]string{"cause process_stopped"}},
	{"stopped before the window began, its parent asleep",
		evidenceOf(parented(thread(listener(16, rate(10, 100), rate(10, 0)), false,
			always(stopped)))),
		[]string{"cause process_stopped"}},
	{"frozen", evidenceOf(thread(blockedWindow(16), true, between(2000, 7000,
		evidence.Sample{State: "S", Syscall: "epoll_wait", Frozen: true}, inPoll))),
		[]string{"cause process_stopped"}},
	{"stopped for a part of it only", evidenceOf(thread(blockedWindow(16), true,
		between(2000, 3500, stopped, inSleep))),
		[]string{"cause accept_loop_blocked"}},
	{"stopped at another time", evidenceOf(thread(blockedWindow(16), true, between(7500, 9000,
		stopped, inSleep))),
		[]string{"cause accept_loop_blocked"}},
	{"nobody accepts", evidenceOf(unaccepted(thread(listener(16, rate(10, 100), rate(10, 0)),
		false, always(inSleep)))),
		[]string{"cause no_acceptor"}},
	{"nobody accepted, and nothing was dropped",
		evidenceOf(unaccepted(listener(4096, rate(10, 100), rate(10, 0)))),
		[]string{"cause no_acceptor"}},
	{"stopped, and the queue has room",
		evidenceOf(thread(listener(4096, rate(10, 100), during(rate(10, 2000), 2000, 7000,
			none)), true, between(2000, 7000, stopped, inPoll))),
		[]string{"cause process_stopped"}},
	{"asleep, and the queue has room",
		evidenceOf(thread(listener(4096, rate(10, 100), during(rate(10, 2000), 2000, 7000,
			none)), true, between(2000, 7000, inSleep, inPoll))),
		[]string{"cause accept_loop_blocked"}},
	{"nobody accepted for seconds, nobody knows why", evidenceOf(listener(4096, rate(10, 100),
		during(rate(10, 2000), 2000, 7000, none))),
		[]string{"cause no_acceptor"}},

	// accept() fails.
	{"no descriptor is left, and it tries again at once",
		evidenceOf(failing(thread(blockedWindow(16), true, between(2000, 7000, computing,
			inPoll)), "EMFILE", 9000, 8, 8)),
		[]string{"cause accept_loop_busy"}},
	{"no descriptor is left, and it sleeps before it tries again",
		evidenceOf(failing(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
			inPoll)), "EMFILE", 3, 8, 8)),
		[]string{"cause accept_loop_blocked"}},
	{"no descriptor is left, and no call was seen to fail",
		evidenceOf(failing(thread(blockedWindow(16), true, between(2000, 7000,
			elsewhereInPoll, inPoll)), "", 0, 8, 8)),
		[]string{"cause accept_loop_blocked"}},
	{"one descriptor is left",
		evidenceOf(failing(thread(listener(16, rate(10, 100), rate(10, 0)), true,
			always(elsewhereInPoll)), "", 0, 8, 0)),
		[]string{"cause no_acceptor"}},
	{"none was left once of many times", evidenceOf(failing(thread(blockedWindow(16), true,
		between(2000, 7000, computing, inPoll)), "", 0, 8, 1)),
		[]string{"cause accept_loop_busy"}},
	{"the machine's files are used up", evidenceOf(failing(thread(blockedWindow(16), true,
		between(2000, 7000, inSleep, inPoll)), "ENFILE", 3, 8, 0)),
		[]string{"cause accept_loop_blocked"}},
	{"no memory for connections, and no thread is known", evidenceOf(failing(blockedWindow(16),
		"ENOMEM", 3, 8, 0)),
		[]string{"cause accept_loop_blocked"}},
	{"accept() failed for a moment of a burst",
		evidenceOf(failing(thread(burstWindow(128), true, always(computing)), "ENOBUFS", 3,
			8, 0)),
		[]string{"cause connection_burst", "contributing backlog_too_small"}},

	// Rates and sizes.
	{"more arrive than are accepted",
		evidenceOf(thread(listener(128, rate(10, 300), rate(10, 200)), true,
			always(accepting))),
		[]string{"cause accept_rate_exceeded"}},
	{"held back at a limit of connections",
		evidenceOf(thread(listener(128, rate(10, 300), rate(10, 200)), true,
			always(inPoll))),
		[]string{"cause accept_rate_exceeded"}},
	{"a burst", evidenceOf(burstWindow(128)),
		[]string{"cause connection_burst", "contributing backlog_too_small"}},
	{"a burst, and the loop was seen in its work", evidenceOf(thread(burstWindow(128), true,
		always(computing))),
		[]string{"cause connection_burst", "contributing backlog_too_small"}},
	{"a burst, and the loop was seen asleep", evidenceOf(thread(burstWindow(128), true,
		always(inSleep))),
		[]string{"cause connection_burst", "contributing backlog_too_small"}},
	{"a burst that takes a busy loop long", evidenceOf(thread(
		listener(128, during(rate(30, 20), 10_000, 12_000, plus(100)),
			rate(30, 500)), true, between(10_000, 13_000, computing, inPoll))),
		[]string{"cause connection_burst", "contributing accept_loop_busy"}},
	{"a burst on a busy machine", evidenceOf(thread(
		listener(128, during(rate(30, 20), 10_000, 12_000, plus(100)),
			rate(30, 500)), true, between(10_000, 13_000, starving, inPoll))),
		[]string{"cause connection_burst", "contributing cpu_starved"}},
	{"a burst that fits", evidenceOf(burstWindow(1024)),
		[]string{"note healthy"}},
	{"a tiny backlog", evidenceOf(tinyWindow(2)),
		[]string{"cause backlog_too_small"}},
	{"a tiny backlog, the loop quick", evidenceOf(thread(tinyWindow(2), true, always(inPoll))),
		[]string{"cause backlog_too_small"}},
	{"a tiny backlog, the loop asleep as it ordinarily is", evidenceOf(thread(tinyWindow(2),
		true, always(inSleep))),
		[]string{"cause backlog_too_small"}},
	{"bursts of a moment, into a small queue of an event loop",
		evidenceOf(thread(flashes(8, 80), true, always(readyInPoll))),
		[]string{"cause backlog_too_small"}},
	{"bursts of a moment, and nothing is known of the threads", evidenceOf(flashes(8, 80)),
		[]string{"cause backlog_too_small"}},
	{"bursts of a moment that an ordinary queue would not have held",
		evidenceOf(flashes(8, 700)),
		[]string{"cause backlog_too_small"}},
	{"bursts of a moment that fit", evidenceOf(thread(flashes(100, 80), true,
		always(readyInPoll))),
		[]string{"note healthy"}},
	{"bunches, and a queue that runs empty in between", evidenceOf(accepted(tinyWindow(2), 1)),
		[]string{"cause backlog_too_small"}},
	{"twelve at once are no burst", evidenceOf(listener(4, during(rate(10, 1), 4000, 4050,
		plus(12)), rate(10, 2000))),
		[]string{"cause backlog_too_small"}},
	{"load that begins in the window is no burst",
		evidenceOf(listener(128, during(rate(10, 0), 4000, 10_000, plus(15)),
			rate(10, 200))),
		[]string{"cause accept_rate_exceeded"}},
	{"six at once fit in five", evidenceOf(tinyWindow(5)),
		[]string{"note healthy"}},
	{"capped by somaxconn", evidenceOf(somaxconn(tinyWindow(2), 2, nil)),
		[]string{"cause backlog_capped"}},
	{"a burst, and known to have asked for enough", evidenceOf(somaxconn(burstWindow(128), 128,
		ptr(uint32(4096)))),
		[]string{"cause backlog_capped", "contributing connection_burst"}},
	{"somaxconn was raised since", evidenceOf(somaxconn(burstWindow(128), 4096,
		ptr(uint32(1024)))),
		[]string{"cause backlog_capped", "contributing connection_burst"}},
	{"as large as somaxconn, and the loop sleeps",
		evidenceOf(somaxconn(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
			inPoll)), 16, nil)),
		[]string{"cause accept_loop_blocked"}},
	{"one member of a group is blocked", evidenceOf(grouped(thread(blockedWindow(16), true,
		between(2000, 7000, inSleep, inPoll)), 0, 1)),
		[]string{"cause reuseport_imbalance", "cause accept_loop_blocked"}},
	{"all members of a group are blocked", evidenceOf(grouped(thread(blockedWindow(16), true,
		between(2000, 7000, inSleep, inPoll)), 5, 17)),
		[]string{"cause accept_loop_blocked"}},
	{"the others of the group are nearly full",
		evidenceOf(grouped(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
			inPoll)), 0, 15)),
		[]string{"cause accept_loop_blocked"}},
	{"overflows are reset", evidenceOf(died1(thread(blockedWindow(16), true, between(2000, 7000,
		inSleep, inPoll)),
		event.CauseAcceptQueueFull, event.StageAck, event.ActionReset, 9)),
		[]string{"cause accept_loop_blocked", "contributing abort_on_overflow"}},

	// The SYN queue and the way back.
	{"a flood without cookies",
		evidenceOf(cookies(died1(healthyListener(), event.CauseSynBacklogReserve,
			event.StageSyn, event.ActionDropped, 900), 0, 0)),
		[]string{"cause syncookies_disabled", "contributing syn_queue_pressure"}},
	{"a flood with cookies", evidenceOf(cookies(healthyListener(), 1, 5000)),
		[]string{"cause syn_queue_pressure"}},
	{"cookies behind a full accept queue", evidenceOf(cookies(somaxconn(tinyWindow(2), 2, nil),
		1, 50)),
		[]string{"cause backlog_capped", "contributing syn_queue_pressure"}},
	{"cookies beside a full accept queue", evidenceOf(cookies(thread(blockedWindow(16), true,
		between(2000, 7000, inSleep, inPoll)), 1, 5000)),
		[]string{"cause accept_loop_blocked", "contributing syn_queue_pressure"}},
	{"cookies for clients that then finish", evidenceOf(cookies(finished(healthyListener()), 1,
		300)),
		[]string{"note healthy", "note syn_queue_pressure"}},
	{"a few cookies", evidenceOf(cookies(healthyListener(), 1, 2)),
		[]string{"note healthy", "note syn_queue_pressure"}},
	{"cookies off, and no need of them", evidenceOf(cookies(healthyListener(), 0, 0)),
		[]string{"note healthy"}},
	{"the way back is lost", evidenceOf(halfOpened(healthyListener(), 40, ptr(uint64(40)), 0)),
		[]string{"cause return_path_lost"}},
	{"no answers, and nothing known of repeated SYNs", evidenceOf(halfOpened(healthyListener(),
		400, nil, 0)),
		[]string{"cause return_path_lost"}},
	{"clients leave", evidenceOf(halfOpened(healthyListener(), 400, ptr(uint64(0)), 50)),
		[]string{"contributing client_gave_up"}},
	{"a scan among many clients", evidenceOf(died1(halfOpened(healthyListener(), 5,
		ptr(uint64(0)), 900), event.CauseHandshakeExpired,
		event.StageTimer, event.ActionDropped, 5)),
		[]string{"note client_gave_up"}},
	{"a network that loses one in thirty", evidenceOf(halfOpened(healthyListener(), 33,
		ptr(uint64(33)), 967)),
		[]string{"note healthy"}},
	{"a SYN-ACK or two sent again", evidenceOf(halfOpened(healthyListener(), 2, ptr(uint64(2)),
		998)),
		[]string{"note healthy"}},
	{"SYN-ACKs sent again because ACKs were dropped",
		evidenceOf(halfOpened(died1(thread(blockedWindow(16), true, between(2000, 7000,
			inSleep, inPoll)),
			event.CauseAcceptQueueFull, event.StageAck, event.ActionDropped,
			30), 300, ptr(uint64(300)), 0)),
		[]string{"cause accept_loop_blocked"}},

	// Who is harmed.
	{"half-open health checks beside clients",
		evidenceOf(badAcks(finishing(healthyListener(), 0), 20,
			evidence.BadAcks{ByClient: 20})),
		[]string{"note healthy", "note client_gave_up"}},
	{"nothing but half-open health checks", evidenceOf(onlyEnded(20)),
		[]string{"note client_gave_up"}},
	{"clients' hosts reset the answer, and the clients try again",
		evidenceOf(badAcks(finishing(healthyListener(), 0), 20,
			evidence.BadAcks{ByClient: 20, ClientAgain: 15})),
		[]string{"cause return_path_lost"}},
	{"stray ACKs, and every handshake finished",
		evidenceOf(badAcks(finishing(healthyListener(), 0), 30, evidence.BadAcks{})),
		[]string{"note healthy", "note other_drops"}},
	{"bad ACKs, and as many handshakes unfinished",
		evidenceOf(badAcks(finishing(healthyListener(), 30), 30, evidence.BadAcks{})),
		[]string{"cause other_drops"}},
	{"forged cookies", evidenceOf(died1(finishing(healthyListener(), 0),
		event.CauseCookieInvalid, event.StageAck, event.ActionReset, 500)),
		[]string{"note healthy", "note other_drops"}},
	{"handshakes that nobody accounts for", evidenceOf(finishing(healthyListener(), 4)),
		[]string{"note other_drops"}},
	{"a scan of many ports by one client", scan(&evidence.Evidence{WindowMs: 10_000}, 40),
		[]string{"note no_listener"}},

	{"TCP_DEFER_ACCEPT fills the SYN queue", evidenceOf(cookies(deferred(healthyListener(), 200,
		evidence.Deferred{Watched: 200, Held: 200, AtEnd: 64, LongestMs: 5000}), 1, 300)),
		[]string{"cause other_drops", "contributing syn_queue_pressure"}},
	{"TCP_DEFER_ACCEPT fills it without cookies",
		evidenceOf(cookies(died1(deferred(healthyListener(), 200,
			evidence.Deferred{Watched: 200, Held: 200, LongestMs: 5000}),
			event.CauseSynQueueFull, event.StageSyn, event.ActionDropped, 90), 0, 0)),
		[]string{"cause other_drops", "contributing syncookies_disabled",
			"contributing syn_queue_pressure"}},
	{"a flood where ACKs are ignored, and data comes at once",
		evidenceOf(cookies(deferred(healthyListener(), 200,
			evidence.Deferred{Watched: 200}), 1, 5000)),
		[]string{"cause syn_queue_pressure"}},

	{"most of what finished waits to be accepted at the end",
		evidenceOf(listener(128, during(rate(5, 0), 4200, 5000, plus(1)),
			during(rate(5, 100), 4200, 5000, none))),
		[]string{"note other_drops"}},

	// Elsewhere.
	{"a firewall", ingress(event.CauseNetfilter, event.ActionDropped, 12, nil),
		[]string{"cause dropped_before_listener"}},
	{"rp_filter", ingress(event.CauseRPFilter, event.ActionDropped, 12, nil),
		[]string{"cause dropped_before_listener"}},
	{"a closed port that was asked about", ingress(event.CauseNoListener, event.ActionReset, 2,
		[]uint16{443}), []string{"cause no_listener"}},
	{"a closed port, and nothing else", ingress(event.CauseNoListener, event.ActionReset, 9,
		nil), []string{"cause no_listener"}},
	{"one SYN to some closed port", ingress(event.CauseNoListener, event.ActionReset, 1, nil),
		[]string{"note no_listener"}},
	{"scanned while the loop sleeps", scannedToo(evidenceOf(thread(blockedWindow(16), true,
		between(2000, 7000, inSleep, inPoll)))),
		[]string{"cause accept_loop_blocked", "note no_listener"}},
	{"scanned, and healthy", scannedToo(evidenceOf(healthyListener())), []string{"note healthy",
		"note no_listener"}},
	{"restarted", restarted(&event.Listener{Port: 443}, 0),
		[]string{"cause listener_restarted"}},
	{"closed and not replaced", restarted(nil, 40), []string{"cause listener_restarted",
		"contributing no_listener"}},
	{"closed with connections that nobody had accepted", closedWaiting(),
		[]string{"cause listener_restarted", "contributing no_listener",
			"contributing no_acceptor"}},
	{"closed, another port than the one refused", elsewherePort(restarted(nil, 40)),
		[]string{"cause no_listener", "cause listener_restarted"}},
	{"its process blocked, and ended", blockedAndClosed(), []string{"cause listener_restarted",
		"cause accept_loop_blocked", "contributing no_listener"}},
	{"a security module", evidenceOf(died1(healthyListener(), event.CauseDeniedByLSM,
		event.StageSyn, event.ActionDropped, 80)),
		[]string{"cause other_drops"}},
	{"a stray ACK after the overflow", evidenceOf(died1(thread(blockedWindow(16), true,
		between(2000, 7000, inSleep, inPoll)),
		event.CauseBadHandshakeAck, event.StageAck, event.ActionReset, 90)),
		[]string{"cause accept_loop_blocked", "note other_drops"}},
	{"drops of a listener that is not in the evidence", &evidence.Evidence{WindowMs: 1000,
		Counts: []event.Count{
			{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: 3}}},
		[]string{"cause other_drops"}},
	{"the ledger has more than was seen", unbalanced(evidenceOf(healthyListener())),
		[]string{"note other_drops"}},

	// Nothing.
	{"healthy", evidenceOf(healthyListener()), []string{"note healthy"}},
	{"ignored on purpose", evidenceOf(died1(healthyListener(), event.CauseDeferAccept,
		event.StageAck, event.ActionIgnored, 50)),
		[]string{"note healthy", "note other_drops"}},
	{"ignored on purpose, and data came at once", evidenceOf(deferred(healthyListener(), 50,
		evidence.Deferred{Watched: 50})),
		[]string{"note healthy"}},
	{"ignored on purpose, and a few connected in advance",
		evidenceOf(deferred(healthyListener(), 50, evidence.Deferred{Watched: 50, Held: 3,
			LongestMs: 4000})),
		[]string{"note healthy", "note other_drops"}},
	{"ignored on purpose, and the server speaks first", evidenceOf(deferred(healthyListener(),
		50, evidence.Deferred{Watched: 50, Held: 50, LongestMs: 4000})),
		[]string{"cause other_drops"}},
	{"no SYN", evidenceOf(listener(128, rate(10, 0), rate(10, 100))),
		[]string{"note no_syn_arrived"}},
	{"no SYN and no listener", &evidence.Evidence{WindowMs: 1000,
		Devices: []evidence.Device{{Name: "eth0",
			Programs: []evidence.Program{{Hook: "native XDP", ID: 37, Name: "lb"}}},
			{Name: "eth1", NetNS: 4026532177, Enter: evidence.Enter{PID: 812},
				Programs: []evidence.Program{{Hook: "tc ingress", ID: 40,
					Name: "cil_from_netdev"}}}}},
		[]string{"note no_syn_arrived"}},
	{"SYNs not counted", &evidence.Evidence{WindowMs: 1000,
		Missing: []evidence.Gap{{Need: evidence.NeedSyns,
			Why: "the file has no summary"}}}, nil},
	{"silent because of the filter", silenced(evidenceOf(healthyListener())), nil},
	{"SYNs of a listener not counted",
		evidenceOf(evidence.Listener{ID: event.Listener{Port: 443}}), nil},
	{"deaths before listeners not seen", &evidence.Evidence{WindowMs: 1000,
		Missing: []evidence.Gap{{Need: evidence.NeedIngress,
			Why: "this kernel does not tell"}}}, nil},

	// A file of records: no samples, no timeline.
	{"from a file", fromFile(0), []string{"cause other_drops"}},
	{"from a file, one member of a group", fromFile(1), []string{"cause reuseport_imbalance"}},
}

func silenced(e *evidence.Evidence) *evidence.Evidence {
	e.Silence = "the filter leaves out the rest"
	return e
}

func throttledWindow(from, to uint32) evidence.Listener {
	l := thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll))
	l.Cgroups = []evidence.CPU{{Cgroup: event.Cgroup{ID: 7, Path: "/system.slice/web.service"},
		QuotaUs: ptr(uint64(20000)), PeriodUs: ptr(uint64(100000)),
		Periods: 100, Throttled: 48, ThrottledMs: 3900, Spans: []evidence.Span{
			{FromMs: from, ToMs: to}}}}
	return l
}

func throttled(l evidence.Listener, ms float64) evidence.Listener {
	l.Cgroups[0].ThrottledMs = ms
	return l
}

// parented adds a master that sleeps and does not accept.
func parented(l evidence.Listener) evidence.Listener {
	l.Processes = []event.Process{{PID: 800, Comm: "server", Role: event.RoleListener},
		{PID: 812, Comm: "server", Role: event.RoleHolder}}
	l = thread(l, false, always(evidence.Sample{State: "S", Syscall: "rt_sigsuspend",
		Kernel: []string{"sigsuspend"}}))
	l.Threads[1].PID = 800
	return l
}

// failing adds what accept() returned, and that all descriptors were in use in so many of the
// readings.
func failing(l evidence.Listener, errno string, calls, readings, full uint64) evidence.Listener {
	if calls > 0 {
		l.AcceptFailures = []evidence.AcceptFailure{{PID: 812, Errno: errno, Count: calls}}
	}
	l.Descriptors = []evidence.Descriptors{{PID: 812, Open: 1023, Limit: 1024,
		Readings: readings, Full: full}}
	return l
}

// more adds a process that accepts, and that nobody looked at.
func more(l evidence.Listener) evidence.Listener {
	l.Processes = append(l.Processes, event.Process{PID: 900, Comm: "server",
		Role: event.RoleAcceptor})
	return l
}

// single is a process with one thread.
func single(l evidence.Listener) evidence.Listener {
	l.Threads[0].Alone = true
	return l
}

// prefork has a master that opened the listener, and workers that do this while nothing is
// accepted, each a process with one thread. The role is what the workers are known to be.
func prefork(master evidence.Sample, workers event.Role, did ...evidence.Sample) evidence.Listener {
	l := blockedWindow(16)
	l.Processes = []event.Process{{PID: 800, Comm: "master", Role: event.RoleListener}}
	l = thread(l, true, always(master))
	l.Threads[0].PID, l.Threads[0].TID, l.Threads[0].Alone = 800, 800, true
	for i, smp := range did {
		pid := uint32(801 + i)
		l.Processes = append(l.Processes, event.Process{PID: pid, Comm: "worker",
			Role: workers})
		l = thread(l, true, between(2000, 7000, smp, inAccept))
		l.Threads[i+1].PID, l.Threads[i+1].TID = pid, pid
	}
	return l
}

// flashes are bursts of so many within a moment, every other second, of which the queue holds
// limit+1, the loop takes as many meanwhile, and the rest is dropped; what the readings show is an
// empty queue.
func flashes(limit uint32, size uint64) evidence.Listener {
	l := listener(limit, rate(10, 0), rate(10, 0))
	drops := uint64(0)
	for i := range l.Timeline {
		if i%(2000/stepMs) != 10 {
			continue
		}
		died := size - min(size, 2*uint64(limit+1))
		p := &l.Timeline[i]
		*p.Arrivals, *p.Drops, *p.Accepts = size, died, size-died
		*l.Syns, *l.Accepts, drops = *l.Syns+size, *l.Accepts+size-died, drops+died
	}
	if drops > 0 {
		l = died1(l, event.CauseAcceptQueueFull, event.StageSyn, event.ActionDropped, drops)
	}
	return l
}

// slowWindow accepts 5 of 100 a second.
func slowWindow() evidence.Listener { return listener(16, rate(10, 100), rate(10, 5)) }

// byTurns computes in every other second, and is kept in reserve between.
func byTurns(of int) func(int) evidence.Sample {
	return func(ms int) evidence.Sample {
		if ms/1000%2 == of {
			return evidence.Sample{State: "R", RunMs: ptr(48.0), DelayMs: ptr(0.0),
				User: []string{"crypto/sha256.block", "main.handle", "main.serve",
					"runtime.goexit"}}
		}
		return evidence.Sample{State: "S", Syscall: "futex", RunMs: ptr(0.0),
			DelayMs: ptr(0.0), User: []string{"runtime.futex", "runtime.stopm",
				"runtime.mcall"}}
	}
}

// accepted lets no step accept more: the rest of it is left for the next.
func accepted(l evidence.Listener, most uint64) evidence.Listener {
	left := uint64(0)
	for i := range l.Timeline {
		p := &l.Timeline[i]
		left += *p.Accepts
		n := min(left, most)
		p.Accepts = &n
		left -= n
	}
	return l
}

func deferred(l evidence.Listener, n uint64, d evidence.Deferred) evidence.Listener {
	l = died1(l, event.CauseDeferAccept, event.StageAck, event.ActionIgnored, n)
	l.Deferred = &d
	return l
}

// finishing lets all but some of the handshakes be finished.
func finishing(l evidence.Listener, but uint64) evidence.Listener {
	n := *l.Syns - but
	l.Finished, l.ID.SynQueue, l.HalfOpenBefore, l.SynsAgain = &n, &event.SynQueue{Limit: 128},
		ptr(uint64(0)), ptr(uint64(0))
	return l
}

// badAcks adds bad handshake packets; those that a client's RST was ended a handshake more that had
// begun.
func badAcks(l evidence.Listener, n uint64, b evidence.BadAcks) evidence.Listener {
	l.BadAcks = b
	syns := *l.Syns + b.ByClient
	l.Syns = &syns
	return died1(l, event.CauseBadHandshakeAck, event.StageAck, event.ActionDropped, n)
}

// onlyEnded is a window in which nobody comes but to reset the answer.
func onlyEnded(n uint64) evidence.Listener {
	return badAcks(finishing(listener(128, rate(10, 0), rate(10, 2000)), 0), n,
		evidence.BadAcks{ByClient: n})
}

// scan is one client's SYNs to as many closed ports.
func scan(e *evidence.Evidence, ports int) *evidence.Evidence {
	e.ClientsSeen = ptr(uint64(1))
	for i := range ports {
		e.Ingress = append(e.Ingress, evidence.Death{Cause: event.CauseNoListener,
			Action: event.ActionReset, NetNS: 4026531840, Count: 1,
			Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"),
				Port: uint16(1000 + i)}})
	}
	e.Counts = append(e.Counts, event.Count{Cause: event.CauseNoListener,
		Stage: event.StageIngress, Action: event.ActionReset, Count: uint64(ports)})
	return e
}

func finished(l evidence.Listener) evidence.Listener {
	l.Finished = l.Syns
	return l
}

func unaccepted(l evidence.Listener) evidence.Listener {
	l.Processes[0].Role = event.RoleListener
	return l
}

func somaxconn(l evidence.Listener, max uint32, asked *uint32) evidence.Listener {
	l.Sysctls.Somaxconn, l.AskedBacklog = &max, asked
	return l
}

// grouped puts the listener in a group of three whose other two dropped so many and were so long.
func grouped(l evidence.Listener, dropped uint64, longest uint32) evidence.Listener {
	l.ID.Reuseport = &event.Reuseport{Members: 3}
	l.Members = []evidence.Member{{Listener: l.ID, Processes: l.Processes,
		Dropped: ptr(uint64(9))}}
	for i := range uint32(2) {
		l.Members = append(l.Members, evidence.Member{Listener: l.ID,
			Processes: []event.Process{{PID: 900 + i, Comm: "server"}},
			Dropped:   &dropped, BusiestLen: &longest})
	}
	return l
}

func healthyListener() evidence.Listener { return listener(128, rate(10, 100), rate(10, 2000)) }

func cookies(l evidence.Listener, on uint32, sent uint64) evidence.Listener {
	l.Sysctls.Syncookies, l.Cookies = &on, &sent
	l.ID.SynQueue = &event.SynQueue{Len: 128, Young: 100, Limit: 128}
	return l
}

func halfOpened(l evidence.Listener, synAcksAgain uint64, synsAgain *uint64,
	finished uint64) evidence.Listener {
	l.SynAcksAgain, l.SynsAgain, l.Finished = &synAcksAgain, synsAgain, &finished
	if synAcksAgain == 40 {
		l.Syns = ptr(uint64(80))
	}
	return l
}

func ingress(cause event.Cause, action event.Action, n uint64, ports []uint16) *evidence.Evidence {
	e := &evidence.Evidence{WindowMs: 10_000, Ports: ports, Counts: []event.Count{{Cause: cause,
		Stage: event.StageIngress, Action: action, Count: n}},
		Ingress: []evidence.Death{{Cause: cause, Action: action, NetNS: 4026531840,
			Count: n, Kernel: event.Kernel{Function: "nf_hook_slow", Hook: "input"},
			Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443}}}}
	if cause == event.CauseNoListener {
		e.Elsewhere = []evidence.Elsewhere{{Listener: event.Listener{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443, NetNS: 4026532001}, Enter: evidence.Enter{Name: "web"}}}
	}
	return e
}

func scannedToo(e *evidence.Evidence) *evidence.Evidence {
	more := ingress(event.CauseNoListener, event.ActionReset, 5000, nil)
	e.Counts, e.Ingress = append(e.Counts, more.Counts...), more.Ingress
	return e
}

func restarted(by *event.Listener, noListener uint64) *evidence.Evidence {
	l := died1(healthyListener(), event.CauseListenerClosed, event.StageClose,
		event.ActionReset, 6)
	l.ClosedMs, l.ReplacedBy = ptr(uint64(4000)), by
	e := evidenceOf(l)
	if noListener > 0 {
		more := ingress(event.CauseNoListener, event.ActionReset, noListener, []uint16{443})
		e.Ports, e.Counts, e.Ingress = more.Ports, append(e.Counts,
			more.Counts...), more.Ingress
	}
	return e
}

// closedWaiting is a listener whose queue had room for all until it was closed, and whose process
// took none.
func closedWaiting() *evidence.Evidence {
	e := restarted(nil, 40)
	l := died1(listener(128, rate(2, 10), rate(2, 0)), event.CauseListenerClosed,
		event.StageClose, event.ActionReset, 6)
	l.ClosedMs, l.Accepts = e.Listeners[0].ClosedMs, ptr(uint64(0))
	e.Listeners[0] = l
	return e
}

func unbalanced(e *evidence.Evidence) *evidence.Evidence {
	e.Ledger = []event.LedgerRow{{NetNS: 4026531840, Counter: "ListenDrops", Kernel: 5,
		Synspy: 3, Unattributed: 2}}
	return e
}

func fromFile(full uint32) *evidence.Evidence {
	l := evidence.Listener{
		ID: event.Listener{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443,
			AcceptQueue: &event.Queue{Len: 129, Limit: 128},
			Reuseport:   &event.Reuseport{Members: 4, Full: full}},
		Processes: []event.Process{{PID: 812, Comm: "server",
			Role: event.RoleAcceptor}}, Syns: ptr(uint64(900)), LongestGapMs: ptr(
			uint64(4900)),
	}
	l = died1(l, event.CauseAcceptQueueFull, event.StageSyn, event.ActionDropped, 60)
	e := evidenceOf(l)
	for _, n := range []evidence.Need{evidence.NeedThreads, evidence.NeedOnCPU,
		evidence.NeedCPU, evidence.NeedThrottled, evidence.NeedTimeline, evidence.NeedAccepts, evidence.NeedSysctls, evidence.NeedMembers, evidence.NeedSynAcks, evidence.NeedDevices} {
		e.Missing = append(e.Missing, evidence.Gap{Need: n,
			Why: "a file of records does not have it"})
	}
	return e
}

func TestDiagnose(t *testing.T) {
	told := map[event.FindingID]bool{}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			before := asJSON(t, tt.e)
			d := Diagnose(tt.e)
			if diff := cmp.Diff(before, asJSON(t, tt.e)); diff != "" {
				t.Errorf("the evidence was changed: %s", diff)
			}
			var got []string
			for _, f := range d.Findings {
				got = append(got, string(f.Severity)+" "+string(f.ID))
				told[f.ID] = true
				complete(t, f)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s%s", diff, d.Verdict)
			}
			if !strings.HasSuffix(d.Verdict, ".") || strings.Contains(d.Verdict,
				"\n") || strings.Contains(d.Verdict, "%!") {
				t.Errorf("verdict: %q", d.Verdict)
			}
			if again := Diagnose(clone(t, tt.e)); asJSON(t, again) != asJSON(t, d) {
				t.Errorf("from JSON and back the same evidence gives\n%s\nnot\n%s",
					asJSON(t, again), asJSON(t, d))
			}
		})
	}
	for _, info := range event.Findings() {
		if !told[info.ID] {
			t.Errorf("no case leads to %s", info.ID)
		}
	}
}

// FuzzDiagnose gives it evidence that nobody would collect: it must not fail, and say something
// that can be written.
func FuzzDiagnose(f *testing.F) {
	for _, c := range cases {
		b, err := json.Marshal(c.e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e evidence.Evidence
		if json.Unmarshal(b, &e) != nil {
			return
		}
		for i := range e.Listeners {
			for j := range e.Listeners[i].Timeline { // a replay takes as long as there are arrivals
				if p := &e.Listeners[i].Timeline[j]; evidence.Value(p.Arrivals) > 1e3 || evidence.Value(p.Accepts) > 1e6 {
					return
				}
			}
		}
		asJSON(t, Diagnose(&e))
	})
}

// complete holds a finding to what a reader may rely on.
// oneOfMany is a noun in the plural after 1, or a verb in the singular after more.
var oneOfMany = regexp.MustCompile(`(^|[^\d.,:])1 ((more|other) )?(packets|SYNs|handshakes|listeners|connections|clients|addresses|namespaces|threads|processes|drops|records|ports) ` +
	`|(^| )([2-9]|\d{2,}) of the \d+ sockets that share the port was |(^| )([2-9]|\d{2,}) (packets|SYNs|handshakes|listeners) was `)

func complete(t *testing.T, f event.Finding) {
	t.Helper()
	if len(f.Evidence) == 0 || len(f.Fix) == 0 || f.Title == "" || f.Confidence == "" {
		t.Errorf("%s lacks something: %+v", f.ID, f)
	}
	if !slices.Contains([]string{"application", "platform", "node", "network", "client"},
		f.Owner) {
		t.Errorf("%s: owner %q", f.ID, f.Owner)
	}
	if f.Confidence != event.ConfidenceProven && f.Settles == "" &&
		f.Severity == event.SeverityCause && f.Confidence == event.ConfidencePossible {
		t.Errorf("%s is only possible, and nothing is said to settle it", f.ID)
	}
	for _, text := range append(slices.Clone(f.Fix), f.Title, f.Settles) {
		if wrong := oneOfMany.FindString(text); wrong != "" {
			t.Errorf("%s: %q in %q", f.ID, wrong, text)
		}
		if strings.Contains(text, "-p PID") && len(f.Processes) > 0 ||
			strings.Contains(text, "take clock_nanosleep off") && strings.Contains(text,
				"timeout on") {
			t.Errorf("%s: %q leaves open what is known, or is no help", f.ID, text)
		}
		if strings.Contains(text, "%!") || strings.Contains(text, "  ") ||
			strings.HasSuffix(text, ".") {
			t.Errorf("%s: %q", f.ID, text)
		}
	}
	for _, k := range f.Knobs {
		if k.Name == "" || k.Try == "" || k.Where == "" || k.Why == "" {
			t.Errorf("%s: knob %+v", f.ID, k)
		}
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden holds whole diagnoses to what they were: their words and numbers are what users and
// scripts read.
func TestGolden(t *testing.T) {
	for _, name := range []string{"the loop sleeps", "throttled while it is full", "a burst",
		"capped by somaxconn", "one member of a group is blocked",
		"a flood without cookies", "closed and not replaced", "from a file", "no SYN and no listener"} {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(cases,
				func(c diagnoseCase) bool { return c.name == name })
			d := Diagnose(cases[i].e)
			for i := range d.Timeline { // long, and the evidence's own
				d.Timeline[i].Points = d.Timeline[i].Points[:min(2,
					len(d.Timeline[i].Points))]
			}
			got, file := asJSON(t, d), filepath.Join("testdata",
				strings.ReplaceAll(name, " ", "-")+".json")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; go test -update writes it anew):\n%s",
					file, diff)
			}
		})
	}
}

func clone(t *testing.T, e *evidence.Evidence) *evidence.Evidence {
	t.Helper()
	out := new(evidence.Evidence)
	if err := json.Unmarshal([]byte(asJSON(t, e)), out); err != nil {
		t.Fatal(err)
	}
	return out
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// TestGroupSyns: members of a group whose SYNs are only known together are healthy together, and
// unknown without that.
func TestGroupSyns(t *testing.T) {
	a, b := healthyListener(), healthyListener()
	a.Syns, b.Syns = nil, nil
	e := evidenceOf(a, b)
	if f := Diagnose(e).Findings; len(f) != 0 {
		t.Errorf("%s where it is not known whether any SYN came", f[0].ID)
	}
	e.GroupSyns = ptr(uint64(60))
	if f := Diagnose(e).Findings; len(f) != 1 || f[0].ID != event.FindingHealthy ||
		f[0].Evidence[0].Value != uint64(60) {
		t.Errorf("%+v", f)
	}
	e.GroupSyns = ptr(uint64(0))
	if f := Diagnose(e).Findings; len(f) != 1 || f[0].ID != event.FindingNoSynArrived {
		t.Errorf("%+v", f)
	}
}

// elsewherePort sends the refused SYNs to a port where no listener was.
func elsewherePort(e *evidence.Evidence) *evidence.Evidence {
	e.Ports = []uint16{443, 444}
	e.Ingress[0].Server.Port = 444
	return e
}

// blockedAndClosed is a loop that sleeps while 488 packets die, until its process ends and 600 SYNs
// are refused.
func blockedAndClosed() *evidence.Evidence {
	e := evidenceOf(thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll)))
	e.Listeners[0].ClosedMs = ptr(uint64(8000))
	more := ingress(event.CauseNoListener, event.ActionReset, 600, []uint16{443})
	e.Ports, e.Counts, e.Ingress = more.Ports, append(e.Counts, more.Counts...), more.Ingress
	return e
}

// TestVerdictCounts: the verdict lays no more packets on the first cause than died of it.
func TestVerdictCounts(t *testing.T) {
	want := "Of 1,088 handshake packets that died, 600 went to 10.0.0.1:443: the listener on 10.0.0.1:443 was closed and not replaced while clients were connecting; there is another cause."
	if got := Diagnose(blockedAndClosed()).Verdict; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestNobodyCameToAFullQueue: without a SYN nothing is dropped, and a full queue is not cleared by
// it.
func TestNobodyCameToAFullQueue(t *testing.T) {
	l := listener(3, rate(1, 0), rate(1, 0))
	l.ID.AcceptQueue.Len = 3
	if got := Diagnose(evidenceOf(l)).Verdict; !strings.Contains(got,
		"what stops the clients is before it") {
		t.Errorf("a queue that has room: %s", got)
	}
	l.ID.AcceptQueue.Len = 4
	want := "No SYN reached this kernel's IP stack, but the accept queue of 10.0.0.1:443 is full (4 of 3): a SYN that comes is dropped there."
	if got := Diagnose(evidenceOf(l)).Verdict; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestNobodyCameToOneNamespace: what a container's namespace did not get, its host's may have
// dropped on the way.
func TestNobodyCameToOneNamespace(t *testing.T) {
	e := evidenceOf(listener(3, rate(1, 0), rate(1, 0)))
	e.Filter, e.OneNetNS = "--netns web --port 443", true
	d := Diagnose(e)
	if strings.Contains(d.Verdict, "this kernel's IP stack") || !strings.Contains(d.Verdict,
		"this network namespace") {
		t.Error(d.Verdict)
	}
	if len(d.Findings) != 1 || !strings.Contains(d.Findings[0].Fix[0], "without --netns") {
		t.Errorf("%+v", d.Findings)
	}
}

// TestNothingDroppedNobodyAccepts: that the queue had room for all does not make it healthy that
// nobody takes them.
func TestNothingDroppedNobodyAccepts(t *testing.T) {
	want := "Handshakes to 10.0.0.1:443 are in trouble: nobody accepted on 10.0.0.1:443 for 3 s while connections waited in its queue; what was seen does not say why."
	waits := during(rate(5, 0), 1000, 2000, plus(1))
	if got := Diagnose(evidenceOf(listener(128, waits, during(rate(5, 100), 1000, 4000,
		func(uint64) uint64 { return 0 })))).Verdict; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	brief := during(rate(5, 100), 1000, 1500, func(uint64) uint64 { return 0 })
	if got := Diagnose(evidenceOf(listener(128, waits, brief))).Verdict; !strings.HasPrefix(got,
		"The listen path is not the problem") {
		t.Errorf("half a second: %s", got)
	}
}

// An ACK that is lost here or on the way looks like a client that left: nobody is blamed alone, and
// nothing is called harmless.
func TestLeftOrLost(t *testing.T) {
	d := Diagnose(evidenceOf(halfOpened(healthyListener(), 400, ptr(uint64(0)), 50)))
	if f := d.Findings[0]; f.ID != event.FindingClientGaveUp ||
		f.Confidence != event.ConfidencePossible || !strings.Contains(d.Verdict,
		"their ACKs were lost") {
		t.Errorf("%s, %s: %s", f.ID, f.Confidence, d.Verdict)
	}
	if text := fmt.Sprint(d.Findings); strings.Contains(text, "harmless") ||
		!strings.Contains(text, "ct state invalid") {
		t.Error(text)
	}
}

// TestThaw: a frozen process is offered what the version of cgroups does that froze it, and both
// where that is not known.
func TestThaw(t *testing.T) {
	for _, test := range []struct {
		by        []string
		want, not string
	}{
		{[]string{"/sys/fs/cgroup/a b/cgroup.freeze"},
			"echo 0 > '/sys/fs/cgroup/a b/cgroup.freeze'", "THAWED"},
		{[]string{"/sys/fs/cgroup/freezer/docker/a/freezer.state"},
			"echo THAWED > /sys/fs/cgroup/freezer/docker/a/freezer.state", "echo 0"},
		{nil, "write 0 to cgroup.freeze of the cgroup (version 2), THAWED", "echo"},
	} {
		l := thread(blockedWindow(16), true, between(2000, 7000, evidence.Sample{State: "S",
			Syscall: "epoll_wait", Frozen: true}, inPoll))
		l.FrozenBy = test.by
		f := Diagnose(evidenceOf(l)).Findings[0]
		if f.ID != event.FindingProcessStopped || !strings.Contains(f.Fix[0], test.want) ||
			strings.Contains(f.Fix[0], test.not) {
			t.Errorf("%s by %q: %q", f.ID, test.by, f.Fix)
		}
	}
}

// TestNoLimitIsNoFix: what the replay says of limits that do not help is evidence, and nothing to
// do.
func TestNoLimitIsNoFix(t *testing.T) {
	f := Diagnose(evidenceOf(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
		inPoll)))).Findings[0]
	if strings.Contains(strings.Join(f.Fix, "\n"), "no limit ends that") {
		t.Errorf("%q", f.Fix)
	}
	if !slices.ContainsFunc(f.Evidence,
		func(ev event.Evidence) bool {
			return strings.Contains(fmt.Sprint(ev.Value),
				"no limit ends that")
		}) {
		t.Errorf("%+v", f.Evidence)
	}
}
