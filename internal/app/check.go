// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// checkRow is one line of the report. What goes beyond the table's columns is
// for programs: whether a backend is available, where the counters are.
type checkRow struct {
	event.Header
	render.CheckRow
	Backend   string            `json:"backend,omitempty"`
	Available *bool             `json:"available,omitempty"`
	Counters  map[string]uint32 `json:"counters,omitempty"`
	Without   []kernel.Loss     `json:"without,omitempty"` // of a capability: what each command loses without it
	Tables    []load.Table      `json:"tables,omitempty"`  // what can be full, and what happens then
	isFooter  bool              // too long for the table
}

// Check reports what this kernel and these privileges let a trace do: each
// privilege, each fact the plan is made from, each backend, and then the plan,
// hook by hook. It does not guess: the programs are loaded and attached as a
// trace would, and taken out again. An error that wraps ErrUnable says that a
// trace cannot run; the report is complete all the same.
func Check(to io.Writer, writing cli.Writing, watch session.Watch, log *slog.Logger) error {
	facts, err := facts.Gather(watch.BTF)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUnable, err)
	}
	facts.Try()
	c := checker{facts: facts, watch: watch, missing: cli.MissingCapabilities()}
	c.privileges()
	c.kernel()
	c.backends()
	hooks, err := c.trace(log)
	var blind []event.Blind
	for i := range hooks { // a table of their own
		blind = append(blind, hooks[i].Blind...)
		hooks[i].Blind = nil
	}
	if writeErr := c.write(to, writing, hooks, blind); writeErr != nil {
		return writeErr
	}
	if err != nil {
		return cli.CheckedError{Err: fmt.Errorf("%w: %w", cli.ErrUnable, err)}
	}
	return nil
}

// checker collects the rows.
type checker struct {
	facts   *facts.Facts
	watch   session.Watch
	missing []kernel.Capability
	rows    []checkRow
}

func (c *checker) add(name string, status render.CheckStatus, detail string) *checkRow {
	c.rows = append(c.rows, checkRow{Header: event.Head("check"),
		CheckRow: render.CheckRow{Name: name, Status: status, Detail: detail}})
	return &c.rows[len(c.rows)-1]
}

// addResult adds a row for something that was tried. A refusal for want of
// privileges says nothing about the kernel.
func (c *checker) addResult(name, good string, err error) *checkRow {
	if err == nil {
		return c.add(name, render.CheckOK, good)
	}
	row := c.add(name, c.status(err), cli.PlainError(err))
	switch {
	case row.Status == render.CheckRefused:
		row.Remedy = "more privileges, see above"
	case errors.Is(err, kernel.ErrSymbolsHidden):
		row.Remedy = cli.ShowSymbols
	}
	return row
}

func (c *checker) status(err error) render.CheckStatus {
	if cli.IsRefused(err, c.missing) {
		return render.CheckRefused
	}
	return render.CheckMissing
}

func (c *checker) privileges() {
	for _, needed := range kernel.NeededCapabilities() {
		missing := slices.ContainsFunc(c.missing,
			func(m kernel.Capability) bool { return m.Bit == needed.Bit })
		status, detail := render.CheckOK, "to "+needed.Why
		switch {
		case missing && needed.Optional:
			status, detail = render.CheckMissing, "optional: "+detail
		case missing:
			status = render.CheckRefused
		}
		row := c.add(needed.Name, status, detail)
		row.Without = needed.Without
		if status == render.CheckRefused {
			row.Remedy = "run with sudo"
		}
	}
}

// kernel reports the facts that the plan is made from.
func (c *checker) kernel() {
	f := c.facts
	c.add("kernel", render.CheckOK, fmt.Sprintf("Linux %s, %s, %d CPUs online", f.Release,
		f.Arch, len(f.CPUs)))
	if what, takes := session.UnseenProcesses(); what != "" {
		c.add("processes", render.CheckRefused,
			what+" are not seen: who holds listeners, and what they do").Remedy = takes
	} else {
		c.add("processes", render.CheckOK, "all of this machine are seen")
	}
	if kernel.Confidential() {
		c.add("lockdown", render.CheckMissing,
			"confidentiality: no program may read the kernel's memory, whoever asks").Remedy = "boot with lockdown=integrity, or without"
	}
	if f.BTF != nil {
		c.addResult("BTF", "",
			f.BTF).Remedy = "a kernel with CONFIG_DEBUG_INFO_BTF=y, or --btf FILE"
		c.add("counters", render.CheckUnknown, "their places are in the BTF")
	} else {
		file := c.watch.BTF
		if file == "" {
			file = kernel.BTFFile
		}
		c.add("BTF", render.CheckOK, file)
		c.counters()
	}
	c.addResult("kernel symbols",
		fmt.Sprintf("code of %s that free packets; only tracepoints need it",
			render.Plural(len(f.Code), "function")), f.CodeErr)
	c.tables()
}

// tables reports how much there is room for, and how many namespaces there are.
func (c *checker) tables() {
	tables, err := load.Tables(c.facts)
	if err != nil {
		c.addResult("tables", "", err)
		return
	}
	rooms := make(map[string]uint32)
	for _, t := range tables {
		rooms[t.Name] = t.Rows
	}
	late := "made on first use"
	if !c.facts.LateRows {
		late = "made at the start: this kernel's tracing programs make none"
	}
	text := fmt.Sprintf("room for %d network namespaces, %d listeners, %d kinds of drops; rows are %s", rooms["openings"],
		rooms["arrived"], rooms["counts"], late)
	row := c.add("tables", render.CheckOK, text)
	row.Tables = tables
	if list, _, err := kernel.NetNamespaces("/proc"); err == nil &&
		uint32(len(list)) > rooms["openings"] {
		row.Status = render.CheckUnknown
		row.Detail = fmt.Sprintf("%d network namespaces; %s", len(list), text)
		row.Remedy = "name those in question: --netns, --port or --container keeps room for them"
	}
}

// counters reports where in struct linux_mib the ledger's counters are.
func (c *checker) counters() {
	if c.facts.MIBErr != nil {
		c.addResult("counters", "",
			c.facts.MIBErr).Remedy = "a kernel from 5.10 on, with its own BTF"
		return
	}
	places := make(map[string]uint32, event.NumCounters)
	for counter := range event.NumCounters {
		places[counter.String()] = c.facts.MIB[counter]
	}
	c.add("counters", render.CheckOK,
		fmt.Sprintf("all %d of the ledger; ListenOverflows is number %d, ListenDrops %d",
			len(places), places["ListenOverflows"], places["ListenDrops"])).Counters = places
}

// backends reports what became of trying each of them.
func (c *checker) backends() {
	for _, b := range []struct {
		name    string
		support facts.Support
	}{
		{facts.Trampoline, c.facts.Trampoline},
		{facts.Kprobe, c.facts.Kprobe},
		{facts.Tracepoint, c.facts.Tracepoint},
	} {
		row := c.addResult(b.name, "loads and attaches", b.support.Err)
		if !b.support.Known && b.support.Err == nil {
			row.Status, row.Detail = render.CheckUnknown, "could not be tried"
		}
		available := b.support.Yes()
		row.Backend, row.Available = b.name, &available
	}
}

// trace loads and attaches what a trace would. The hooks are those of the plan,
// attached or not; the error says why a trace cannot run.
func (c *checker) trace(log *slog.Logger) ([]event.Hook, error) {
	ring := c.watch.RingSize
	p, err := probe.Open(c.facts, c.watch.Backend, load.Config{RingSize: ring, Accepts: true},
		log)
	if err != nil {
		c.add("ring buffer", render.CheckUnknown, "is made with the programs")
		c.add("BPF iterator", render.CheckUnknown, "is loaded with the programs")
		c.add("trace", c.status(err), "cannot run")
		return c.wouldBe(), err
	}
	c.add("ring buffer", render.CheckOK, fmt.Sprintf("%d KiB", ring>>10))
	found := 0
	err = p.EachHolder(func(*holders.Holder) { found++ })
	if errors.Is(err, holders.ErrNoIterator) { // the plan says what is done without
		c.add("BPF iterator", render.CheckMissing, cli.PlainError(err))
		err = nil
	} else {
		c.addResult("BPF iterator", fmt.Sprintf("found %s of listeners in all namespaces",
			render.Plural(found, "holder")), err)
	}
	plan := p.Plan()
	if err := errors.Join(err, p.Close()); err != nil {
		c.add("trace", c.status(err), "cannot run")
		return c.explained(plan), err
	}
	hooks := c.explained(plan)
	c.causes(hooks)
	attached := 0
	for _, hook := range hooks {
		if hook.Attached {
			attached++
		}
	}
	c.add("trace", render.CheckOK,
		fmt.Sprintf("by %s, %d of %d hooks; all were attached and taken out again",
			plan.Backend, attached, len(hooks)))
	return hooks, nil
}

// causes reports what is told apart, in part at least.
func (c *checker) causes(hooks []event.Hook) {
	var names []string
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		branch := o.Branch()
		if name := branch.Cause.String(); branch.Kind == event.KindDrop &&
			branch.Cause != event.CauseKernelOther &&
			!isBlind(hooks, branch) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	c.add("causes", render.CheckOK,
		strings.Join(names, ", ")+"; any other death is kernel_other").isFooter = true
}

// isBlind reports whether no death on this branch shows as its cause.
func isBlind(hooks []event.Hook, branch event.Branch) bool {
	for _, hook := range hooks {
		for _, b := range hook.Blind {
			if b.Part == "" && b.Of(branch.Cause, branch.Stage) &&
				b.Shows != branch.Cause.String() {
				return true
			}
		}
	}
	return false
}

// wouldBe is the plan of a run with privileges, as far as BTF tells; none where
// it is not privileges that are missing.
func (c *checker) wouldBe() []event.Hook {
	hopeful := *c.facts
	for _, support := range []*facts.Support{&hopeful.Trampoline, &hopeful.Kprobe,
		&hopeful.Tracepoint} {
		if support.Err != nil && c.status(support.Err) == render.CheckRefused {
			*support = facts.Support{}
		}
	}
	plan, err := plan.Make(&hopeful, c.watch.Backend)
	if err != nil {
		return nil
	}
	hooks := plan.Events()
	for i := range hooks {
		hooks[i].Blind = nil // nothing is told at all
		if hooks[i].Attached {
			hooks[i].Attached = false
			hooks[i].Note = "to be tried with more privileges"
		}
	}
	return hooks
}

// explained says of each hook why it is the way it is.
func (c *checker) explained(plan plan.Plan) []event.Hook {
	hooks := plan.Events()
	for i := range hooks {
		hook := &hooks[i]
		switch {
		case hook.Note != "":
			hook.Note = cli.WithoutGuesses(hook.Note)
		case !hook.Attached:
		case hook.Backend == facts.Trampoline:
			hook.Note = fmt.Sprintf("entry and exit; %d arguments",
				c.facts.Functions[hook.Name])
		case hook.Backend == facts.Kprobe && c.watch.Backend == facts.Auto:
			hook.Note = "entry and exit; trampolines are refused"
		case hook.Backend == facts.Kprobe:
			hook.Note = "entry and exit; as asked for"
		case hook.Backend != facts.Tracepoint:
			hook.Note = "who holds each listener"
		case strings.Contains(hook.Name, " "):
			hook.Note = "who opens a listener"
		case plan.Backend != facts.Tracepoint:
			hook.Note = "a tracepoint with every backend"
		case c.watch.Backend == facts.Auto:
			hook.Note = "trampolines and kprobes are refused"
		default:
			hook.Note = "as asked for"
		}
	}
	return hooks
}

func (c *checker) write(to io.Writer, writing cli.Writing, hooks []event.Hook,
	blind []event.Blind) error {
	options := writing.Options
	if options.Format == render.FormatJSON {
		for _, row := range c.rows {
			if err := render.WriteJSON(to, row); err != nil {
				return err
			}
		}
		return errors.Join(render.HookTable(to, hooks, options),
			render.BlindTable(to, blind, options))
	}
	var (
		rows   []render.CheckRow
		losses []render.LossRow
		footer string
	)
	for _, row := range c.rows {
		for _, loss := range row.Without {
			losses = append(losses,
				render.LossRow{Capability: row.Name,
					Has: row.Status == render.CheckOK, Verb: loss.Verb, Lost: loss.Lost})
		}
		if row.isFooter {
			footer += "\n" + row.Name + ": " + row.Detail + "\n"
			continue
		}
		rows = append(rows, row.CheckRow)
	}
	if err := render.CheckTable(to, rows, options); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(to); err != nil {
		return err
	}
	if err := render.LossTable(to, losses, options); err != nil || len(hooks) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(to); err != nil {
		return err
	}
	if err := render.HookTable(to, hooks, options); err != nil {
		return err
	}
	if len(blind) > 0 {
		footer += "\ncannot tell apart here:\n"
	}
	if _, err := io.WriteString(to, footer); err != nil || len(blind) == 0 {
		return err
	}
	return render.BlindTable(to, blind, options)
}
