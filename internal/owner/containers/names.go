// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// Bounds. A machine may have containers without end, and a runtime may hang.
const (
	maxEntries = 4096
	maxCalls   = 4               // containers asked about at the same time
	callTime   = 2 * time.Second // that a runtime has for all it is asked about one of them

	// An answer is asked for again after so long: Docker renames containers.
	// None is asked for again sooner: it may only just be made, or the runtime
	// be starting.
	keepKnown   = time.Minute
	keepUnknown = 5 * time.Second
	sickTime    = 5 * time.Second // that a runtime which fails is left alone

	maxName = 1024 // bytes; Kubernetes allows 253
)

// Key is a container as its cgroup names it.
type Key struct {
	ID      string // 64 hex digits
	Runtime string // empty where the path does not tell

	// User is the UID, in decimal, of whoever owns the part of the tree of
	// cgroups that it is in; empty for the machine's own. He can give his
	// cgroups any name, so only his runtimes are believed about them.
	User string
}

// Answer is what a runtime says of a container. It must not be written.
type Answer struct {
	Name    string     // empty for the sandbox of a pod
	Runtime string     // what it says it is, empty if nothing known here
	Pod     *event.Pod // nil where there is none; Container is set where that has a name
}

// equal compares what they say.
func (a *Answer) equal(b *Answer) bool {
	if a == nil || b == nil || a.Pod == nil || b.Pod == nil {
		return a == b || a != nil && b != nil && a.Pod == b.Pod && *a == *b
	}
	return a.Name == b.Name && a.Runtime == b.Runtime && *a.Pod == *b.Pod
}

// runtime is something that can be asked.
type runtime interface {
	// ask returns errUnknown for a container that it does not have.
	ask(ctx context.Context, id string) (*Answer, error)
	close() error
}

var errUnknown = errors.New("no such container")

// Names remembers what containers are called. All methods may be called from
// any goroutine.
type Names struct {
	log       *slog.Logger
	endpoints []Endpoint
	dial      func(Endpoint) (runtime, error)
	now       func() time.Time
	callTime  time.Duration

	ctx     context.Context
	stop    context.CancelFunc
	calls   sync.WaitGroup
	changes atomic.Uint64
	waiting atomic.Int64 // entries that the runtimes were not asked about yet

	mu       sync.Mutex
	entries  map[Key]*entry
	queue    []Key
	working  int
	runtimes map[Endpoint]runtime // of the machine, dialled once
	sick     map[Endpoint]time.Time
	retry    *time.Timer
	slow     bool // somebody waited in vain, and nobody has answered since
}

type entry struct {
	answer *Answer       // nil: none so far
	asked  chan struct{} // closed when the runtimes were asked once
	again  time.Time     // when to ask again
	queued bool
}

// New asks the given endpoints. Close ends it.
func New(endpoints []Endpoint, log *slog.Logger) *Names {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Names{log: log, endpoints: endpoints, dial: dial, now: time.Now, callTime: callTime,
		ctx: ctx, stop: stop,
		entries: make(map[Key]*entry), runtimes: make(map[Endpoint]runtime), sick: make(map[Endpoint]time.Time)}
}

func dial(e Endpoint) (runtime, error) {
	if e.CRI {
		return dialCRI(e.Path)
	}
	return newEngine(e), nil
}

// Changes grows whenever some container has got another name, or one without may
// be asked about again: then everything is to be looked up once more. It may be
// called on nil.
func (n *Names) Changes() uint64 {
	if n == nil {
		return 0
	}
	return n.changes.Load()
}

// Waiting reports whether there are containers which the runtimes are still to say
// their first word on. It may be called on nil.
func (n *Names) Waiting() bool { return n != nil && n.waiting.Load() > 0 }

// Lookup returns what the container is called, as far as is known by now, and
// has the runtimes asked where that is due.
func (n *Names) Lookup(k Key) *Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.entries[k]
	if e == nil {
		if !n.room() {
			return nil
		}
		e = &entry{asked: make(chan struct{})}
		n.entries[k] = e
		n.waiting.Add(1)
	}
	if !e.queued && !n.now().Before(e.again) && n.ctx.Err() == nil {
		e.queued = true
		n.queue = append(n.queue, k)
		if n.working < maxCalls {
			n.working++
			n.calls.Go(n.work)
		}
	}
	if e.answer == nil && !e.queued {
		n.retryLater()
	}
	return e.answer
}

// retryLater has containers without a name looked up again.
func (n *Names) retryLater() {
	if n.retry != nil || n.ctx.Err() != nil {
		return
	}
	n.retry = time.AfterFunc(keepUnknown, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.retry = nil
		n.changes.Add(1)
	})
}

// room makes sure that one more entry fits.
func (n *Names) room() bool {
	if len(n.entries) < maxEntries {
		return true
	}
	for k, e := range n.entries { // in no order: any will do
		if !e.queued {
			delete(n.entries, k)
			return true
		}
	}
	return false
}

// Pending reports whether the runtimes are still to say their first word on it.
func (n *Names) Pending(k Key) bool { return n.pending(k) != nil }

func (n *Names) pending(k Key) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.entries[k]
	if e == nil || !e.queued {
		return nil
	}
	select {
	case <-e.asked:
		return nil
	default:
		return e.asked
	}
}

// Await waits until the runtimes have said their first word on these
// containers, but no longer than so long, and not at all while they are known to
// be slower than somebody who waited.
func (n *Names) Await(keys []Key, atMost time.Duration) {
	var timeout <-chan time.Time
	for _, k := range keys {
		asked := n.pending(k)
		if asked == nil {
			continue
		}
		if n.isSlow() {
			return
		}
		if timeout == nil {
			timer := time.NewTimer(atMost)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-asked:
		case <-timeout:
			n.mu.Lock()
			n.slow = true
			n.mu.Unlock()
			return
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Names) isSlow() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.slow
}

// Close ends the calls under way and closes the runtimes' connections.
func (n *Names) Close() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	n.stop() // nobody starts to work any more
	if n.retry != nil {
		n.retry.Stop()
	}
	n.mu.Unlock()
	n.calls.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, r := range n.runtimes {
		errs = append(errs, r.close())
	}
	clear(n.runtimes)
	return errors.Join(errs...)
}

// work asks until nothing is left to be asked.
func (n *Names) work() {
	for {
		n.mu.Lock()
		if len(n.queue) == 0 || n.ctx.Err() != nil {
			n.working--
			n.mu.Unlock()
			return
		}
		k := n.queue[0]
		n.queue = n.queue[1:]
		n.mu.Unlock()

		n.settle(k, n.ask(k))
	}
}

// settle remembers an answer, nil for none. What was answered before is true
// until another answer takes its place: a runtime that stops takes no name along.
func (n *Names) settle(k Key, a *Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.entries[k]
	e.queued = false
	if a == nil {
		e.again = n.now().Add(keepUnknown)
		if e.answer == nil {
			n.retryLater()
		}
	} else {
		e.again = n.now().Add(keepKnown)
		n.slow = false
		if !a.equal(e.answer) {
			e.answer = a
			n.changes.Add(1)
		}
	}
	select {
	case <-e.asked:
	default:
		close(e.asked)
		n.waiting.Add(-1)
	}
}

// ask asks one runtime after the other.
func (n *Names) ask(k Key) *Answer {
	endpoints := n.endpoints
	if k.User != "" {
		endpoints = ofUser(k.User)
	}
	for _, at := range endpoints {
		if !at.mayKnow(k) || n.isSick(at) {
			continue
		}
		a, err := n.askOne(at, k.ID)
		switch {
		case err == nil:
			return a
		case errors.Is(err,
			fs.ErrNotExist), n.ctx.Err() != nil: // not on this machine, or over
		case errors.Is(err, errUnknown):
			n.log.Debug("asking a container runtime", "socket", at.Path, "container",
				k.ID, "err", err)
		default:
			n.log.Info("asking a container runtime", "socket", at.Path, "container",
				k.ID, "err", err)
			n.mu.Lock()
			if len(n.sick) >= maxEntries { // of users without end
				clear(n.sick)
			}
			n.sick[at] = n.now().Add(sickTime)
			n.mu.Unlock()
		}
	}
	return nil
}

func (n *Names) isSick(at Endpoint) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now().Before(n.sick[at])
}

func (n *Names) askOne(at Endpoint, id string) (*Answer, error) {
	if _, err := os.Lstat(at.Path); err != nil {
		return nil, err
	}
	r, err := n.runtime(at)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.callTime)
	defer cancel()
	a, err := r.ask(ctx, id)
	if err != nil {
		return nil, err
	}
	return a.within(maxName), nil
}

// runtime returns the client of an endpoint. Users' have nothing to keep.
func (n *Names) runtime(at Endpoint) (runtime, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.runtimes[at]; r != nil {
		return r, nil
	}
	r, err := n.dial(at)
	if err == nil && at.CRI {
		n.runtimes[at] = r
	}
	return r, err
}

// within leaves out what is longer than any name: it would be in every record.
func (a *Answer) within(most int) *Answer {
	fits := func(s *string) {
		if len(*s) > most {
			*s = ""
		}
	}
	fits(&a.Name)
	fits(&a.Runtime)
	if a.Pod != nil {
		for _, s := range []*string{&a.Pod.Namespace, &a.Pod.Name, &a.Pod.Container,
			&a.Pod.UID} {
			fits(s)
		}
	}
	return a
}
