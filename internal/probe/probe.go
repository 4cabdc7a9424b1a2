// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/synspy/synspy/internal/bpf"
)

// Probe is the BPF side of one run. It is made by Open, begun by Start, read by
// Read, ended by Stop, and freed by Close.
type Probe struct {
	*objects
	*ledger
	*listenerCounts

	config Config
	facts  *Facts
	plan   Plan
	log    *slog.Logger
	links  []link.Link
	late   late
	names  *names
	reader *ringbuf.Reader
}

// newProbe is one that is not open yet.
func newProbe(facts *Facts, plan Plan, config Config, cpus int, log *slog.Logger) *Probe {
	p := &Probe{config: config, facts: facts, plan: plan, log: log,
		names: newNames(facts.Reasons)}
	p.objects = &objects{online: facts.CPUs, possible: cpus, sizes: sizesFor(facts, cpus),
		held: make(map[string]int64)}
	p.ledger = &ledger{objects: p.objects, filter: &p.config.Filter}
	p.listenerCounts = &listenerCounts{objects: p.objects, plan: &p.plan, facts: facts,
		accepts: config.Accepts, byOwner: config.Filter.ByOwner,
		departed: make(map[uint64]bpf.SynspyArrivals), arrived: make(map[uint64]bpf.SynspyArrivals)}
	return p
}

// Open plans, loads and attaches behind a closed gate: nothing is counted yet.
// What a kernel refuses is seen by trying: a refused backend is put among the
// facts and the plan is made again, so that facts and plan tell why.
func Open(facts *Facts, backend string, config Config, log *slog.Logger) (*Probe, error) {
	return openBy(attachProgram, facts, backend, config, log)
}

// openBy is Open with another way to attach.
func openBy(one attacher, facts *Facts, backend string, config Config, log *slog.Logger) (*Probe,
	error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	for {
		plan, err := Make(facts, backend)
		if err != nil {
			return nil, err
		}
		if !config.Accepts {
			plan.Hooks = slices.DeleteFunc(plan.Hooks,
				func(h Hook) bool { return h.Accepts })
		}
		p := newProbe(facts, plan, config, cpus, log)
		err = p.open(one)
		if err == nil {
			facts.cache, facts.types = nil, nil // decoded types are not needed any more
			return p, nil
		}
		err = errors.Join(err, p.Close())
		if !facts.refused(plan.Backend, err) {
			return nil, err
		}
		log.Debug("plan again", "refused", plan.Backend, "error", err)
	}
}

// refused books an error against the hook or the backend that met it, once; false if
// there is nothing left to try.
func (f *Facts) refused(backend string, err error) bool {
	if errors.Is(err, ErrVerifier) {
		return false
	}
	var hook *hookError
	if errors.As(err, &hook) {
		if !hook.core {
			return f.refusedHook(hook)
		}
		backend = hook.backend
	}
	switch support := (Support{true, err}); {
	case strings.Contains(backend, Trampoline) && f.Trampoline.Maybe():
		f.Trampoline = support
	case strings.Contains(backend, Kprobe) && f.Kprobe.Maybe():
		f.Kprobe = support
	case backend == Tracepoint && f.Tracepoint.Maybe():
		f.Tracepoint = support
	default:
		return false
	}
	return true
}

// refusedHook books a hook that one can do without.
func (f *Facts) refusedHook(refused *hookError) bool {
	tried := attempt{refused.hook, refused.backend}
	if f.refusedHooks[tried] != nil {
		return false
	}
	if f.refusedHooks == nil {
		f.refusedHooks = make(map[attempt]error)
	}
	f.refusedHooks[tried] = refused.err
	return true
}

func (p *Probe) open(one attacher) error {
	began := time.Now()
	var err error
	if p.collection, err = load(p.facts, p.plan, p.config); err != nil {
		return explainRefusal(p.facts, p.plan, p.config, err, p.log)
	}
	// The ring buffer and what attaches come on top of what loading took. Made again, if a plan is, the types are decoded again.
	p.facts.cache, p.facts.types = nil, nil
	giveBack()
	p.log.Debug("loaded", "backend", p.plan.Backend, "took", time.Since(began))
	began = time.Now()
	if err := p.prepare(one); err != nil {
		return err
	}
	p.log.Debug("attached", "took", time.Since(began))
	return nil
}

// prepare does what must be done before the first program may run.
func (p *Probe) prepare(one attacher) error {
	var err error
	if p.reader, err = ringbuf.NewReader(p.collection.Maps["ring"]); err != nil {
		return fmt.Errorf("open ring buffer: %w", err)
	}
	if err := p.makeOtherRows(p.config.Accepts); err != nil {
		return err
	}
	err = p.onEachCPU(func(cpu int, run runner) error {
		answer, err := run.ask(bpf.SynspyRequestREQUEST_LOCATE, 0, namespace{})
		if err == nil && answer != bpf.SynspyAnswerANSWER_DONE {
			err = fmt.Errorf("find per-CPU memory of CPU %d", cpu)
		}
		return err
	})
	if err != nil {
		return err
	}
	p.links, err = attach(p.collection, &p.plan, one)
	return err
}

// Plan returns the plan as it came out: refused hooks are noted in it.
func (p *Probe) Plan() Plan { return p.plan }

// Start begins to count: the namespaces that were found get their opening values,
// then each CPU's gate opens. named tells in which the user asks for a listener:
// they keep rows of their own, however many others there are.
func (p *Probe) Start(found *Found, named func(netns uint64) bool) error {
	p.idle = make(map[uint64]bool)
	p.accepting.begin(found)
	for ns, listens := range found.namespaces {
		p.idle[ns.id] = !listens
	}
	if err := p.findSleepers(found); err != nil {
		return err
	}
	books, err := p.track(found, named)
	if err != nil {
		return err
	}
	return p.openLedger(books)
}

// Stop ends counting, takes the closing values and hands over what is still in
// the ring buffer.
func (p *Probe) Stop(f func(*Message) error) error {
	if err := p.closeLedger(); err != nil {
		return err
	}
	var message Message
	p.reader.SetDeadline(time.Now())
	for {
		record, err := p.reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read ring buffer: %w", err)
		}
		if !message.decode(record.RawSample) {
			continue
		}
		if err := f(&message); err != nil {
			return err
		}
	}
}

// Want lets a listener through the owner filter, or not.
func (p *Probe) Want(socket uint64, yes bool) error {
	var value uint32
	if yes {
		value = 1
	}
	err := p.collection.Maps["wanted"].Put(socket, value)
	if isFull(err) {
		return nil // one that is not judged passes: its records are judged when they come
	}
	if err != nil {
		return fmt.Errorf("filter listener: %w", err)
	}
	return nil
}

// Close detaches everything and frees it.
func (p *Probe) Close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	if p.collection != nil {
		p.collection.Close()
	}
	return errors.Join(errs...)
}
