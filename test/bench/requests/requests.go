// SPDX-License-Identifier: Apache-2.0

// Package requests compares the requests a second of servers that close each connection, with and
// without a tracer.
package requests

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/test/bench/command"
	"github.com/synspy/synspy/test/bench/figures"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
)

// requestsConfig is a comparison of whole servers: requests a second with and without synspy, on
// this machine's kernel or on another one's, where what instructions do not show is felt: cache
// misses, and CPUs that contend for one listener.
type requestsConfig struct {
	synspy   string
	backend  string
	servers  []string
	verbs    []string
	pairs    int
	clients  int
	duration time.Duration
}

// Servers that close each connection.
const (
	serverGo    = "go"
	serverNginx = "nginx"
)

var requestServers = []string{serverGo, serverNginx}

// verbNone is a process that does nothing: what it seems to take is noise.
const verbNone = "none"

var requestVerbs = []string{verbNone, tracer.VerbEmpty, tracer.VerbTrace, tracer.VerbDiagnose}

// Run compares requests a second, on this machine's kernel or in a virtual machine.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench requests", flag.ContinueOnError)
	flags.SetOutput(stderr)
	c := requestsConfig{servers: requestServers, verbs: requestVerbs}
	var in requestsMachine
	in.addFlags(flags)
	flags.StringVar(&c.synspy, "synspy", "bin/synspy", "`path` of synspy")
	flags.StringVar(&c.backend, "backend", "auto", "synspy's `backend`")
	flags.Var(&command.NameList{Into: &c.servers, Known: requestServers}, "servers", "ask these `servers`")
	flags.Var(&command.NameList{Into: &c.verbs, Known: requestVerbs}, "verbs", "run these beside the servers; "+
		verbNone+" is a process that does nothing: it shows the noise; "+
		tracer.VerbEmpty+" has programs that return at once where trace has its own: no tracer there costs less")
	flags.IntVar(&c.pairs, "pairs", 20, "interleaved pairs, without and with each verb")
	flags.IntVar(&c.clients, "clients", 16, "clients at once")
	flags.DurationVar(&c.duration, "duration", 2*time.Second, "of one half of a pair")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if in.kernel != "" {
		return runRequestsIn(ctx, &in, c.synspy, flags, stdout, stderr)
	}
	var rows [][]string
	for _, server := range c.servers {
		more, err := c.server(ctx, server, stderr)
		if err != nil {
			return fmt.Errorf("%s: %w", server, err)
		}
		rows = append(rows, more...)
	}
	if in.out != "" {
		file, err := os.Create(in.out)
		if err != nil {
			return fmt.Errorf("keep the table: %w", err)
		}
		defer file.Close()
		stdout = io.MultiWriter(stdout, file)
	}
	return figures.PrintTable(stdout, fmt.Sprintf("Requests a second, each on a connection of its own, %d clients; %d interleaved pairs, median (min..max)",
		c.clients, c.pairs), []string{"server", "verb", "requests, untraced", "part that is left", "CPU a request, untraced", "times"}, rows)
}

// emulatedClients is how many clients an emulated machine has at once, unless asked otherwise.
const emulatedClients = 4

// requestsMachine is the virtual machine that servers are compared in, if any.
type requestsMachine struct {
	vm, kernel, dir, out string
	limit                time.Duration
}

func (m *requestsMachine) addFlags(flags *flag.FlagSet) {
	flags.StringVar(&m.vm, "vm", "bin/vm", "`path` of test/vm's program")
	flags.StringVar(&m.kernel, "kernel", "", "compare in a virtual machine with this kernel, "+
		"by its `name` in bin/vm kernels")
	flags.StringVar(&m.dir, "dir", "bin", "keep what it prints in this `directory`")
	flags.StringVar(&m.out, "out", "", "write the table into this `file` too")
	flags.DurationVar(&m.limit, "limit", time.Hour, "end the virtual machine after this time")
}

// args have test/vm's program run this one in the guest, with the flags that were given. The table is
// in a file of ours then.
func (m *requestsMachine) args(synspy, guestSynspy, guestBench string, flags *flag.FlagSet,
) (args []string, table string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	const guestTable = "/root/requests.txt"
	table = filepath.Join(m.dir, "requests.guest")
	args = []string{"run", "--kernel", m.kernel, "--timeout", m.limit.String(),
		"--accel", "tcg,thread=single", "--smp", "2", "--file", synspy + ":" + guestSynspy,
		"--file", self + ":" + guestBench, "--out", guestTable + ":" + table}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		args = append(args, "--file-with-libs", nginx)
	}
	args = append(args, "--", guestBench, "requests", "-out", guestTable, "-synspy", guestSynspy,
		"-clients", strconv.Itoa(emulatedClients))
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "backend", "servers", "verbs", "pairs", "clients", "duration":
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	return args, table, nil
}

// runRequestsIn compares in a virtual machine.
func runRequestsIn(ctx context.Context, in *requestsMachine, synspy string, flags *flag.FlagSet,
	stdout, stderr io.Writer,
) error {
	args, table, err := in.args(synspy, command.GuestSynspy, command.GuestBench, flags)
	if err != nil {
		return err
	}
	if err := command.Run(ctx, stderr, in.vm, args...); err != nil {
		return fmt.Errorf("compare in a virtual machine: %w", err)
	}
	content, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	_, err = stdout.Write(content)
	return err
}

// tracers are the verbs that watch a server. Others on this machine may listen on that port.
func (c *requestsConfig) tracers(ctx context.Context, world *world.World, port int) ([]tracer.Tracer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	trace := tracer.Tracer{Name: tracer.VerbTrace, Argv: []string{c.synspy, "trace", "--backend", c.backend}, Ready: "synspy: watching on", AnyCPU: true}
	if slices.Contains(c.verbs, tracer.VerbEmpty) {
		if err := keepPlacesOf(ctx, trace, c.backend); err != nil {
			return nil, err
		}
	}
	diagnose := []string{c.synspy, "diagnose", "--backend", c.backend, "--netns", world.Path(), "--port", strconv.Itoa(port), "--duration", "1h"}
	all := []tracer.Tracer{
		{Name: verbNone, Argv: []string{self, "idle"}, Ready: "READY", AnyCPU: true},
		{Name: tracer.VerbEmpty, Argv: []string{self, "empties", tracer.PlacesFile(c.backend)}, Ready: "READY", AnyCPU: true},
		trace,
		{Name: tracer.VerbDiagnose, Argv: diagnose, Ready: " of 1h0m0s:", AnyCPU: true},
	}
	return slices.DeleteFunc(all, func(tr tracer.Tracer) bool {
		return !slices.Contains(c.verbs, tr.Name)
	}), nil
}

// keepPlacesOf runs a tracer for as long as it takes to see where its programs are.
func keepPlacesOf(ctx context.Context, tr tracer.Tracer, backend string) error {
	watching, err := tr.Start(ctx)
	if err != nil {
		return err
	}
	return errors.Join(tracer.KeepPlaces(watching, backend), watching.Abandon())
}

// RunIdle does nothing until the context ends.
func RunIdle(ctx context.Context, stdout io.Writer) error {
	fmt.Fprintln(stdout, "READY")
	<-ctx.Done()
	return nil
}

// server measures one server with each verb, and gives rows of the table.
func (c *requestsConfig) server(ctx context.Context, name string, stderr io.Writer) (rows [][]string, err error) {
	world, err := world.New(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	server, err := startServer(ctx, world, name, command.GuestPort)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	half := func(watching *tracer.Running) (load, error) { return c.half(world, server, watching) }
	if _, err := half(nil); err != nil { // the first is warmer than none
		return nil, err
	}
	tracers, err := c.tracers(ctx, world, command.GuestPort)
	if err != nil {
		return nil, err
	}
	for _, tr := range tracers {
		var pairs []requestPair
		before, err := half(nil)
		if err != nil {
			return nil, err
		}
		for pair := range c.pairs {
			watching, err := tr.Start(ctx)
			if err != nil {
				return nil, err
			}
			on, err := half(watching)
			if err := errors.Join(err, watching.Abandon()); err != nil {
				return nil, err
			}
			after, err := half(nil)
			if err != nil {
				return nil, err
			}
			pairs = append(pairs, requestPair{[2]load{before, after}, on})
			before = after
			fmt.Fprintf(stderr, "bench: %s, %s, pair %d: %.0f/s x %.3f, CPU x %.3f\n", name, tr.Name, pair+1,
				after.rate, pairs[pair].rate(), pairs[pair].cpu())
		}
		rows = append(rows, requestRow(name, tr.Name, pairs))
	}
	return rows, nil
}

// load is what a server did in one half of a pair.
type load struct {
	rate float64 // requests a second
	cpu  float64 // seconds a request, of clients, server and tracer
}

// requestPair is a half with a tracer between two without.
type requestPair struct {
	off [2]load
	on  load
}

// rate is the part of the untraced one that is left.
func (p requestPair) rate() float64 { return 2 * p.on.rate / (p.off[0].rate + p.off[1].rate) }

// cpu is what a request takes, of what it takes untraced: other programs of the machine matter less to it.
func (p requestPair) cpu() float64 { return 2 * p.on.cpu / (p.off[0].cpu + p.off[1].cpu) }

func requestRow(server, verb string, pairs []requestPair) []string {
	series := func(value func(requestPair) float64) figures.Spread {
		var values []float64
		for _, p := range pairs {
			values = append(values, value(p))
		}
		return figures.SpreadOf(values)
	}
	return []string{server, verb,
		series(func(p requestPair) float64 { return p.off[1].rate }).Text(0, "/s"), series(requestPair.rate).Text(3, ""),
		series(func(p requestPair) float64 { return p.off[1].cpu * 1e6 }).Text(0, " µs"), series(requestPair.cpu).Text(3, "")}
}

// half has clients ask for a while, each request on a new connection.
func (c *requestsConfig) half(world *world.World, server *requestServer, watching *tracer.Running) (load, error) {
	time.Sleep(traffic.Settle)
	used := func() float64 {
		const userHZ = 100
		ticks := server.cpuTime()
		if watching != nil {
			ticks += watching.CPUTime()
		}
		var own unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &own) // fails for another who alone
		return float64(ticks)/userHZ + time.Duration(own.Utime.Nano()+own.Stime.Nano()).Seconds()
	}
	type answer struct {
		n   int
		err error
	}
	answers := make(chan answer, c.clients)
	before, begin := used(), time.Now()
	for range c.clients {
		go func() {
			n := 0
			err := traffic.Within(world, func() error {
				for ; time.Since(begin) < c.duration; n++ {
					if err := ask(command.GuestPort); err != nil {
						return err
					}
				}
				return nil
			})
			answers <- answer{n, err}
		}()
	}
	total := 0
	var errs []error
	for range c.clients {
		a := <-answers
		total += a.n
		errs = append(errs, a.err)
	}
	took := time.Since(begin).Seconds()
	return load{float64(total) / took, (used() - before) / float64(total)}, errors.Join(errs...)
}
