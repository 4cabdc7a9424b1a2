// SPDX-License-Identifier: Apache-2.0

package event

// Counter is one of the kernel's listen-path counters that the ledger closes
// over. Its order is the order of COUNTER_* in bpf/event.h; a test holds the
// two together.
type Counter uint8

// The closed list of DESIGN 3: only the listen path moves these.
const (
	CounterListenOverflows Counter = iota
	CounterListenDrops
	CounterTCPReqQFullDrop
	CounterTCPReqQFullDoCookies
	CounterSyncookiesSent
	CounterSyncookiesRecv
	CounterSyncookiesFailed
	CounterTCPDeferAcceptDrop
	CounterTCPFastOpenListenOverflow
	CounterEmbryonicRsts
	NumCounters
)

// counterNames pairs the name nstat prints with the enumerator of the kernel's
// LINUX_MIB_* enum that is the counter's index.
var counterNames = [NumCounters]struct{ nstat, mib string }{
	CounterListenOverflows: {"ListenOverflows", "LINUX_MIB_LISTENOVERFLOWS"},
	CounterListenDrops:     {"ListenDrops", "LINUX_MIB_LISTENDROPS"},
	CounterTCPReqQFullDrop: {"TCPReqQFullDrop", "LINUX_MIB_TCPREQQFULLDROP"},
	CounterTCPReqQFullDoCookies: {"TCPReqQFullDoCookies",
		"LINUX_MIB_TCPREQQFULLDOCOOKIES"},
	CounterSyncookiesSent:     {"SyncookiesSent", "LINUX_MIB_SYNCOOKIESSENT"},
	CounterSyncookiesRecv:     {"SyncookiesRecv", "LINUX_MIB_SYNCOOKIESRECV"},
	CounterSyncookiesFailed:   {"SyncookiesFailed", "LINUX_MIB_SYNCOOKIESFAILED"},
	CounterTCPDeferAcceptDrop: {"TCPDeferAcceptDrop", "LINUX_MIB_TCPDEFERACCEPTDROP"},
	CounterTCPFastOpenListenOverflow: {"TCPFastOpenListenOverflow",
		"LINUX_MIB_TCPFASTOPENLISTENOVERFLOW"},
	CounterEmbryonicRsts: {"EmbryonicRsts", "LINUX_MIB_EMBRYONICRSTS"},
}

// String returns the counter's name as nstat and /proc/net/netstat print it.
func (c Counter) String() string {
	if c >= NumCounters {
		return "unknown"
	}
	return counterNames[c].nstat
}

// MIB returns the enumerator of the kernel's anonymous LINUX_MIB_* enum whose
// value is this counter's index in struct linux_mib.
func (c Counter) MIB() string { return counterNames[c].mib }
