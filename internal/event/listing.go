// SPDX-License-Identifier: Apache-2.0

package event

// Listing is one listening TCP socket as it stands (type "listener"). Nil and empty
// fields are unknown.
type Listing struct {
	Header
	Time     Time     `json:"time,omitzero"`
	Listener Listener `json:"listener"`
	NetNS    string   `json:"netns_name,omitempty"` // in /run/netns
	V6Only   *bool    `json:"v6only,omitempty"`     // of IPv6 sockets: false is IPv4 as well
	MPTCP    bool     `json:"mptcp,omitempty"`
	Backlog  *Backlog `json:"backlog,omitempty"`
	Drops    *Drops   `json:"drops,omitempty"`
	Rates    *Rates   `json:"rates,omitempty"` // of a watch

	// Processes is empty for a listener that no process holds, as those of the kernel
	// itself; OwnersKnown says that this is so, and not merely hidden.
	Processes   []Process  `json:"processes,omitempty"`
	OwnersKnown bool       `json:"owners_known"`
	Cgroup      *Cgroup    `json:"cgroup,omitempty"`
	Container   *Container `json:"container,omitempty"`
	Pod         *Pod       `json:"pod,omitempty"`
	Warnings    []Warning  `json:"warnings"`
}

// Backlog says what limits the accept queue. The kernel keeps the lesser of what
// listen() asked for and net.core.somaxconn at that time.
type Backlog struct {
	Limit     uint32  `json:"limit"`
	Somaxconn *uint32 `json:"somaxconn,omitempty"` // of the namespace, now
	By        string  `json:"by,omitempty"`        // one of the Backlog constants
}

// What limits a backlog.
const (
	BacklogListen    = "listen"              // the argument of listen(): the limit is below somaxconn
	BacklogEqual     = "listen_or_somaxconn" // they are equal: what listen() asked for, that or more, is not kept
	BacklogSomaxconn = "somaxconn_at_listen" // the limit is above: somaxconn was lowered since
)

// Drops is a socket's sk_drops since it was made. It is approximate: other things than
// lost handshakes count there, and not all of these do.
type Drops struct {
	Count       uint64 `json:"count"`
	Approximate bool   `json:"approximate"`
}

// Rates are per second, over the last interval of a watch.
type Rates struct {
	SYNs    *float64 `json:"syns,omitempty"`    // that reached it, dropped or not
	Accepts *float64 `json:"accepts,omitempty"` // connections that accept() took
}

// Warning is something about a listener that deserves a look, and what shows it.
type Warning struct {
	ID       string   `json:"id"`
	Text     string   `json:"text"`
	Evidence []string `json:"evidence"`
}

// The warnings.
const (
	WarnAcceptQueue = "accept_queue_over_half"
	WarnSynQueue    = "syn_queue_over_half"
	WarnCapped      = "backlog_capped"
	WarnTiny        = "backlog_tiny"
	WarnCookies     = "syncookies_off"
	WarnNobody      = "nobody_accepts"
	WarnElsewhere   = "asleep_elsewhere"
)
