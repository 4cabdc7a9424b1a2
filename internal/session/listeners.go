// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
)

// Listeners remembers the listening sockets of a run, also those that closed last: their
// counts are still to be named at its end. A kernel address that a later socket
// takes over is renamed; what is remembered is bounded.
type Listeners struct {
	mu     sync.Mutex
	filter load.Filter
	known  map[uint64]*known
	places map[uint64]uint64 // the last listener that came to a place that hashes to this
	seed   maphash.Seed
	closed map[uint64]time.Time // since when, of those that still have rows in the kernel side's tables
	gone   []uint64             // those that had rows, and closed, in that order
	Keep   int                  // how many of gone are remembered
	lists  uint32               // how often the holders were listed

	turnedAway uint64
	changes    uint64 // grows with whatever may change what list and matches say
}

type known struct {
	listener message.Listener
	next     uint64 // the one before it in places; 0: none
	life     *life  // nil where it was seen neither to open nor to close
	listed   uint32 // when it was last listed, by lists
	judged   bool
	wanted   bool
	met      bool // a packet that the filters ask for was given to it, whatever its own port and address are
}

// life is from when to when something listens. Times are by CLOCK_MONOTONIC, in ns.
type life struct {
	opened uint64  // 0: before it was watched
	limit  uint32  // of its accept queue then
	asked  *uint32 // what listen() was called with then; nil where it was not seen
	closed uint64  // 0: not yet
}

// Place is what the members of a SO_REUSEPORT group share.
type Place struct {
	netns  uint64
	addr   netip.Addr
	port   uint16
	device uint32 // that they are bound to; 0 for none
}

const (
	MaxKnown  = 1 << 17
	spareRoom = MaxKnown / 16 // for listeners that open; of those that closed fewer are remembered first
	maxGone   = 4096
)

// NewListeners is a table of those that a filter wants.
func NewListeners(filter load.Filter) *Listeners {
	return &Listeners{filter: filter, known: make(map[uint64]*known),
		places: make(map[uint64]uint64), seed: maphash.MakeSeed(),
		closed: make(map[uint64]time.Time), Keep: maxGone}
}

// PlaceOf is where a listener listens.
func PlaceOf(l *message.Listener) Place { return Place{l.NetNS, l.Addr, l.Port, l.Device} }

// Add makes a listener known; false if it was already.
func (l *Listeners) Add(listener message.Listener) bool {
	if !listener.Known || !listener.Member {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.known[listener.Socket]; ok {
		if have.listener.Inode == listener.Inode &&
			PlaceOf(&have.listener) == PlaceOf(&listener) {
			have.listener, have.listed = listener, l.lists
			return false
		}
		l.remove(listener.Socket)
	}
	if len(l.known) >= MaxKnown {
		l.turnedAway++
		return false
	}
	at := l.hash(&listener)
	l.known[listener.Socket] = &known{listener: listener, next: l.places[at], listed: l.lists}
	l.places[at] = listener.Socket
	l.changes++
	return true
}

// Open makes a listener known that was seen to open.
func (l *Listeners) Open(m *message.Message) {
	l.Add(m.Listener)
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.known[m.Listener.Socket]
	if !ok {
		return
	}
	have.life = &life{opened: m.Time, limit: m.Listener.Accept.Limit}
	delete(l.closed, m.Listener.Socket)
	l.changes++
	if backlog := m.Backlog; m.Asked &&
		backlog >= have.life.limit { // that is the smaller of it and somaxconn
		have.life.asked = &backlog
	}
}

// Asked is what listen() was called with for a listener that was seen to open; nil where that is
// not known. Who calls listen() again is not seen: it shows in a limit that is another one now.
func (l *Listeners) Asked(now *message.Listener) *uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.known[now.Socket]; ok && have.life != nil &&
		have.life.limit == now.Accept.Limit {
		return have.life.asked
	}
	return nil
}

// OpenedAt is when a listener was seen to open, by CLOCK_MONOTONIC; 0 where it listened
// before, or is not known.
func (l *Listeners) OpenedAt(socket uint64) uint64 {
	opened, _ := l.Lived(socket)
	return opened
}

// Close notes that a listener closed, at a time by CLOCK_MONOTONIC.
func (l *Listeners) Close(socket, at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed[socket] = time.Now()
	l.changes++
	if have, ok := l.known[socket]; ok {
		if have.life == nil {
			have.life = new(life)
		}
		have.life.closed = at
	}
}

// Lived is from when to when a listener was seen to listen, by CLOCK_MONOTONIC; 0 where it did
// before, or does still.
func (l *Listeners) Lived(socket uint64) (opened, closed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.known[socket]; ok && have.life != nil {
		return have.life.opened, have.life.closed
	}
	return 0, 0
}

// Changed is another number once there are other listeners, or others match.
func (l *Listeners) Changed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes
}

// Closing reports whether some listener closed a moment ago.
func (l *Listeners) Closing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.closed) > 0
}

// settleAfter is how long after its closing a listener's packets may still be under way.
const settleAfter = 2 * time.Second

// Departed lists the listeners that closed a while ago, once.
func (l *Listeners) Departed() map[uint64]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	sockets := make(map[uint64]bool)
	for socket, since := range l.closed {
		if time.Since(since) > settleAfter {
			sockets[socket] = true
			delete(l.closed, socket)
			l.gone = append(l.gone, socket)
		}
	}
	return sockets
}

// Outdated takes out the listeners that closed first, of those that are more than are to be
// remembered.
func (l *Listeners) Outdated() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	more := min(max(len(l.gone)-l.Keep, len(l.known)+spareRoom-MaxKnown, 0), len(l.gone))
	old := slices.DeleteFunc(slices.Clone(l.gone[:more]), func(socket uint64) bool {
		have, ok := l.known[socket]
		return ok && (have.life == nil || have.life.closed == 0) // listen() was called again
	})
	l.gone = slices.Delete(l.gone, 0, more)
	return old
}

// Forget drops listeners that are outdated, but for those that packets are still counted for.
func (l *Listeners) Forget(outdated, still []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, socket := range outdated {
		if _, ok := l.known[socket]; ok && !slices.Contains(still, socket) {
			l.remove(socket)
		}
	}
	l.gone = append(l.gone, still...)
}

// beginList begins to list the holders.
func (l *Listeners) beginList() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists++
}

// endList forgets listeners that no process holds any more in namespaces of which no closing is
// told, since one of them alone is watched.
func (l *Listeners) endList() {
	if l.filter.NetNS == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for socket, have := range l.known {
		if have.listed != l.lists && have.listener.NetNS != l.filter.NetNS {
			l.remove(socket)
		}
	}
}

// Unnamed is how often a listener was met that there was no room for.
func (l *Listeners) Unnamed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turnedAway
}

func (l *Listeners) remove(socket uint64) {
	gone := l.known[socket]
	at := l.hash(&gone.listener)
	switch before := l.places[at]; {
	case before != socket:
		for l.known[before].next != socket {
			before = l.known[before].next
		}
		l.known[before].next = gone.next
	case gone.next != 0:
		l.places[at] = gone.next
	default:
		delete(l.places, at)
	}
	delete(l.known, socket)
	l.changes++
}

// hash is where in places a listener's place is.
func (l *Listeners) hash(listener *message.Listener) uint64 {
	return maphash.Comparable(l.seed, PlaceOf(listener))
}

// sockets lists all that are known.
func (l *Listeners) sockets() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sockets := make([]uint64, 0, len(l.known))
	for socket := range l.known {
		sockets = append(sockets, socket)
	}
	return sockets
}

// List returns them.
func (l *Listeners) List() []message.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]message.Listener, 0, len(l.known))
	for _, known := range l.known {
		list = append(list, known.listener)
	}
	return list
}

// Sharing returns those that may share their place with another one that is known.
func (l *Listeners) Sharing() []message.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []message.Listener
	for _, last := range l.places {
		if l.known[last].next == 0 {
			continue
		}
		for socket := last; socket != 0; socket = l.known[socket].next {
			list = append(list, l.known[socket].listener)
		}
	}
	return list
}

// Inodes maps the known listeners' inodes to their sockets.
func (l *Listeners) Inodes() map[uint64]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sockets := make(map[uint64]uint64, len(l.known))
	for socket, known := range l.known {
		if known.listener.Inode != 0 {
			sockets[known.listener.Inode] = socket
		}
	}
	return sockets
}

// Group lists the sockets that share a place with one of them.
func (l *Listeners) Group(one *message.Listener) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sockets []uint64
	at := PlaceOf(one)
	for socket := l.places[l.hash(one)]; socket != 0; socket = l.known[socket].next {
		if PlaceOf(&l.known[socket].listener) == at { // else its hash alone is the same
			sockets = append(sockets, socket)
		}
	}
	return sockets
}

// want keeps a verdict of the owner filters; false if it is no news.
func (l *Listeners) want(socket uint64, wanted bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.known[socket]
	if !ok || (have.judged && have.wanted == wanted) {
		return false
	}
	have.judged, have.wanted = true, wanted
	l.changes++
	return true
}

// IsWanted reports whether the owner filters let the listener through. Without
// owner filters they all are.
func (l *Listeners) IsWanted(socket uint64) bool {
	if !l.filter.ByOwner {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.known[socket]
	return ok && have.wanted
}

// Find returns a listener by its socket.
func (l *Listeners) Find(socket uint64) (message.Listener, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.known[socket]
	if !ok {
		return message.Listener{}, false
	}
	return have.listener, true
}

// Remembers reports whether what reached a listener is still known as its own.
func (l *Listeners) Remembers(socket uint64) bool {
	_, known := l.Find(socket)
	return known
}

// Meet notes whose a packet was that the filters ask for: TPROXY and BPF programs give packets to
// listeners of other ports and addresses.
func (l *Listeners) Meet(socket uint64) {
	if len(l.filter.Ports)+len(l.filter.Servers) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.known[socket]; ok && !have.met {
		have.met = true
		l.changes++
	}
}

func (l *Listeners) wasMet(socket uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.known[socket]
	return ok && have.met
}

// isMapped reports whether a rule sends to the listener what is for the ports asked about.
func (l *Listeners) isMapped(listener *message.Listener) bool {
	return slices.ContainsFunc(l.filter.Mapped, func(m load.Mapped) bool {
		addr := listener.Addr.Unmap()
		return m.Port == listener.Port && (m.NetNS == 0 || m.NetNS == listener.NetNS) &&
			(!m.Addr.IsValid() || addr.IsUnspecified() || addr == m.Addr.Unmap())
	})
}

// Matches reports whether a listener is one of those that the filters ask for.
func (l *Listeners) Matches(listener *message.Listener) bool {
	f := &l.filter
	if f.NetNS != 0 && f.NetNS != listener.NetNS {
		return false
	}
	if l.wasMet(listener.Socket) || l.isMapped(listener) {
		return l.IsWanted(listener.Socket)
	}
	if len(f.Ports) > 0 && !slices.ContainsFunc(f.Ports, func(r load.PortRange) bool {
		return r.Low <= listener.Port && listener.Port <= r.High
	}) {
		return false
	}
	if len(f.Servers) > 0 && !listener.Addr.IsUnspecified() && !slices.ContainsFunc(f.Servers,
		func(p netip.Prefix) bool { return p.Contains(listener.Addr.Unmap()) }) {
		return false
	}
	return l.IsWanted(listener.Socket)
}

// All reports whether every listener is asked for, also one that is not known.
func (l *Listeners) All() bool {
	f := &l.filter
	return f.NetNS == 0 && len(f.Ports) == 0 && len(f.Servers) == 0 && !f.ByOwner
}

// spaces are the network namespaces in which the filters ask for a listener that is known.
func (l *Listeners) spaces() map[uint64]bool {
	asked := make(map[uint64]bool)
	for _, socket := range l.sockets() {
		listener, ok := l.Find(socket)
		if ok && !asked[listener.NetNS] && l.Matches(&listener) {
			asked[listener.NetNS] = true
		}
	}
	return asked
}

// Matching counts the known listeners that the filters ask for.
func (l *Listeners) Matching() int {
	count := 0
	for _, socket := range l.sockets() {
		if listener, ok := l.Find(socket); ok && l.Matches(&listener) {
			count++
		}
	}
	return count
}

// CompareListeners orders them as tables do.
func CompareListeners(a, b *event.Listener) int {
	return cmp.Or(cmp.Compare(a.NetNS, b.NetNS), cmp.Compare(a.Port, b.Port),
		a.Addr.Compare(b.Addr),
		cmp.Compare(a.Inode, b.Inode))
}
