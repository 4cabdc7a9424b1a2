// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/ledger"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/memory"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/probe/plan"
)

// Probe is the BPF side of one run. It is made by Open, begun by Start, read by
// Read, ended by Stop, and freed by Close.
type Probe struct {
	*load.Objects
	*ledger.Ledger
	*listener.Counters
	*message.Names

	config load.Config
	facts  *facts.Facts
	plan   plan.Plan
	log    *slog.Logger
	links  []link.Link
	late   late
	reader *ringbuf.Reader
}

// newProbe is one that is not open yet.
func newProbe(here *facts.Facts, plan plan.Plan, config load.Config, cpus int,
	log *slog.Logger) *Probe {
	p := &Probe{config: config, facts: here, plan: plan, log: log,
		Names: message.NewNames(here.Reasons, log)}
	p.Objects = &load.Objects{Online: here.CPUs, Possible: cpus,
		Sizes: facts.SizesFor(here, cpus),
		Held:  make(map[string]int64)}
	p.Ledger = &ledger.Ledger{Objects: p.Objects, Filter: &p.config.Filter}
	p.Counters = &listener.Counters{Objects: p.Objects, Plan: &p.plan, Facts: here,
		Accepts: config.Accepts, ByOwner: config.Filter.ByOwner,
		Departed: make(map[uint64]bpf.SynspyArrivals), Arrived: make(map[uint64]bpf.SynspyArrivals)}
	return p
}

// Open plans, loads and attaches behind a closed gate: nothing is counted yet.
// What a kernel refuses is seen by trying: a refused backend is put among the
// facts and the plan is made again, so that facts and plan tell why.
func Open(facts *facts.Facts, backend string, config load.Config, log *slog.Logger) (*Probe,
	error) {
	return openBy(load.AttachProgram, facts, backend, config, log)
}

// openBy is Open with another way to attach.
func openBy(one load.Attacher, facts *facts.Facts, backend string, config load.Config,
	log *slog.Logger) (*Probe,
	error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	for {
		planned, err := plan.Make(facts, backend)
		if err != nil {
			return nil, err
		}
		if !config.Accepts {
			planned.Hooks = slices.DeleteFunc(planned.Hooks,
				func(h plan.Hook) bool { return h.Accepts })
		}
		p := newProbe(facts, planned, config, cpus, log)
		err = p.open(one)
		if err == nil {
			facts.Cache, facts.Types = nil, nil // decoded types are not needed any more
			return p, nil
		}
		err = errors.Join(err, p.Close())
		if !facts.Refused(planned.Backend, err) {
			return nil, err
		}
		log.Debug("plan again", "refused", planned.Backend, "error", err)
	}
}

func (p *Probe) open(one load.Attacher) error {
	began := time.Now()
	var err error
	if p.Collection, err = load.Programs(p.facts, p.plan, p.config); err != nil {
		return load.ExplainRefusal(p.facts, p.plan, p.config, err, p.log)
	}
	// The ring buffer and what attaches come on top of what loading took. Made again, if a plan is, the types are decoded again.
	p.facts.Cache, p.facts.Types = nil, nil
	memory.GiveBack()
	p.log.Debug("loaded", "backend", p.plan.Backend, "took", time.Since(began))
	began = time.Now()
	if err := p.prepare(one); err != nil {
		return err
	}
	p.log.Debug("attached", "took", time.Since(began))
	return nil
}

// prepare does what must be done before the first program may run.
func (p *Probe) prepare(one load.Attacher) error {
	var err error
	if p.reader, err = ringbuf.NewReader(p.Collection.Maps["ring"]); err != nil {
		return fmt.Errorf("open ring buffer: %w", err)
	}
	if err := p.MakeOtherRows(p.config.Accepts); err != nil {
		return err
	}
	err = p.OnEachCPU(func(cpu int, run load.Runner) error {
		answer, err := run.Ask(bpf.SynspyRequestREQUEST_LOCATE, 0, load.Namespace{})
		if err == nil && answer != bpf.SynspyAnswerANSWER_DONE {
			err = fmt.Errorf("find per-CPU memory of CPU %d", cpu)
		}
		return err
	})
	if err != nil {
		return err
	}
	p.links, err = load.Attach(p.Collection, &p.plan, one)
	return err
}

// Plan returns the plan as it came out: refused hooks are noted in it.
func (p *Probe) Plan() plan.Plan { return p.plan }

// Walk is holders.Walk, which tells of acceptors with Config.Accepts.
func (p *Probe) Walk(f func(*holders.Holder),
	accepted func(socket uint64, pid uint32, start uint64),
) (*holders.Found, error) {
	var mayWait func(netns uint64) bool
	if only := p.config.Filter.NetNS; p.plan.Attaches(facts.GraftFunction) {
		mayWait = func(netns uint64) bool { return only == 0 || netns == only }
	}
	return holders.Walk(p.Collection, mayWait, f, accepted)
}

// EachHolder is Walk for who needs no more. What f is given is overwritten by the next one.
func (p *Probe) EachHolder(f func(*holders.Holder)) error { return holders.Each(p.Collection, f) }

// Start begins to count: the namespaces that were found get their opening values,
// then each CPU's gate opens. named tells in which the user asks for a listener:
// they keep rows of their own, however many others there are.
func (p *Probe) Start(found *holders.Found, named func(netns uint64) bool) error {
	p.Idle = make(map[uint64]bool)
	p.Side.Begin(found)
	for ns, listens := range found.Namespaces {
		p.Idle[ns.ID] = !listens
	}
	if err := p.findSleepers(found); err != nil {
		return err
	}
	entries, err := p.Track(found, named)
	if err != nil {
		return err
	}
	return p.OpenLedger(entries)
}

// Stop ends counting, takes the closing values and hands over what is still in
// the ring buffer.
func (p *Probe) Stop(f func(*message.Message) error) error {
	if err := p.CloseLedger(); err != nil {
		return err
	}
	var message message.Message
	p.reader.SetDeadline(time.Now())
	for {
		record, err := p.reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read ring buffer: %w", err)
		}
		if !message.Decode(record.RawSample) {
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
	err := p.Collection.Maps["wanted"].Put(socket, value)
	if ledger.IsFull(err) {
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
	if p.Collection != nil {
		p.Collection.Close()
	}
	return errors.Join(errs...)
}
