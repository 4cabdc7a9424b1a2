// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// requestsConfig is a comparison of whole servers: requests a second with and without synspy, on
// this machine's kernel, where what instructions do not show is felt: cache misses, and CPUs
// that contend for one listener.
type requestsConfig struct {
	synspy   string
	backend  string
	servers  []string
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

func runRequests(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench requests", flag.ContinueOnError)
	flags.SetOutput(stderr)
	c := requestsConfig{servers: requestServers}
	flags.StringVar(&c.synspy, "synspy", "bin/synspy", "`path` of synspy")
	flags.StringVar(&c.backend, "backend", "auto", "synspy's `backend`")
	flags.Var(&nameList{&c.servers, requestServers}, "servers", "ask these `servers`")
	flags.IntVar(&c.pairs, "pairs", 20, "interleaved pairs, without and with each verb")
	flags.IntVar(&c.clients, "clients", 16, "clients at once")
	flags.DurationVar(&c.duration, "duration", 2*time.Second, "of one half of a pair")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var rows [][]string
	for _, server := range c.servers {
		more, err := c.server(ctx, server, stderr)
		if err != nil {
			return fmt.Errorf("%s: %w", server, err)
		}
		rows = append(rows, more...)
	}
	return printTable(stdout, fmt.Sprintf("Requests a second, each on a connection of its own, %d clients; %d interleaved pairs, median (min..max)",
		c.clients, c.pairs), []string{"server", "verb", "requests, untraced", "part that is left", "CPU a request, untraced", "times"}, rows)
}

// tracers are synspy's verbs that watch a server. Others on this machine may listen on that port.
func (c *requestsConfig) tracers(world *world.World, port int) []tracer {
	diagnose := []string{c.synspy, "diagnose", "--backend", c.backend, "--netns", world.Path(), "--port", strconv.Itoa(port), "--duration", "1h"}
	return []tracer{
		{name: verbTrace, argv: []string{c.synspy, "trace", "--backend", c.backend}, ready: "synspy: watching on", anyCPU: true},
		{name: verbDiagnose, argv: diagnose, ready: "synspy: 1s of", anyCPU: true},
	}
}

// server measures one server with each verb, and gives rows of the table.
func (c *requestsConfig) server(ctx context.Context, name string, stderr io.Writer) (rows [][]string, err error) {
	world, err := world.New(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	server, err := startServer(ctx, world, name, guestPort)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	half := func(watching *running) (load, error) { return c.half(world, server, watching) }
	if _, err := half(nil); err != nil { // the first is warmer than none
		return nil, err
	}
	for _, tr := range c.tracers(world, guestPort) {
		var pairs []requestPair
		before, err := half(nil)
		if err != nil {
			return nil, err
		}
		for pair := range c.pairs {
			watching, err := tr.start(ctx)
			if err != nil {
				return nil, err
			}
			on, err := half(watching)
			if err := errors.Join(err, watching.abandon()); err != nil {
				return nil, err
			}
			after, err := half(nil)
			if err != nil {
				return nil, err
			}
			pairs = append(pairs, requestPair{[2]load{before, after}, on})
			before = after
			fmt.Fprintf(stderr, "bench: %s, %s, pair %d: %.0f/s x %.3f, CPU x %.3f\n", name, tr.name, pair+1,
				after.rate, pairs[pair].rate(), pairs[pair].cpu())
		}
		rows = append(rows, requestRow(name, tr.name, pairs))
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
	series := func(value func(requestPair) float64) spread {
		var values []float64
		for _, p := range pairs {
			values = append(values, value(p))
		}
		return spreadOf(values)
	}
	return []string{server, verb,
		series(func(p requestPair) float64 { return p.off[1].rate }).text(0, "/s"), series(requestPair.rate).text(3, ""),
		series(func(p requestPair) float64 { return p.off[1].cpu * 1e6 }).text(0, " µs"), series(requestPair.cpu).text(3, "")}
}

// half has clients ask for a while, each request on a new connection.
func (c *requestsConfig) half(world *world.World, server *requestServer, watching *running) (load, error) {
	time.Sleep(settle)
	used := func() float64 {
		const userHZ = 100
		ticks := server.cpuTime()
		if watching != nil {
			ticks += watching.cpuTime()
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
			err := within(world, func() error {
				for ; time.Since(begin) < c.duration; n++ {
					if err := ask(guestPort); err != nil {
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
