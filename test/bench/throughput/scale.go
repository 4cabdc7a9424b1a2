// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/test/bench/figures"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
	"github.com/synspy/synspy/test/churn"
)

// What a machine with many listeners and many processes has.
const (
	scaleFirst     = 10_000 // port
	scaleListeners = 10_000
	scaleDropping  = 100 // of them
	scaleStarts    = 5
	scaleChurn     = 2000 // processes a second
	scaleDrops     = 300
	scalePause     = 20 * time.Millisecond // between two drops, on average
)

// Workloads of a "scale" result.
const (
	scaleQuiet    = "quiet"
	scaleChurning = "churn"
)

// RunScale measures start-up, memory and delay next to many listeners, with and
// without many short-lived processes.
func RunScale(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	flags.SetOutput(stderr)
	where := flags.String("where", onHost, "`name` of this machine in results")
	out := flags.String("out", "", "append results to this `file` instead of printing them")
	synspy := flags.String("synspy", "bin/synspy", "`path` of synspy")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var file *os.File
	var err error
	if *out != "" {
		file, err = os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	} else if file, err = os.CreateTemp("", "bench-"); err == nil {
		defer os.Remove(file.Name())
	}
	if err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	defer file.Close()
	if err := measureScale(ctx, *synspy, recorder{file: file, where: *where}, stderr); err != nil || *out != "" {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	all, err := readResults(file)
	if err != nil {
		return err
	}
	return renderScale(stdout, all)
}

func measureScale(ctx context.Context, synspy string, record recorder, log io.Writer) (err error) {
	w, err := world.New(ctx)
	if err != nil {
		return fmt.Errorf("set up traffic: %w", err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	tr := tracer.Tracer{Name: synspyAllName, Ready: "synspy: watching on",
		Argv: []string{synspy, "trace", "-o", "json", "--rate", "0", "--netns", w.Path()}}
	if err := scaleStart(ctx, tr, 0, record); err != nil { // to compare with
		return err
	}
	// Backlog 0: one handshake fills the queue.
	_, err = server.Start(w, server.Config{Listeners: []server.ListenConfig{
		{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), scaleFirst), Many: scaleListeners}}})
	if err != nil {
		return err
	}
	for i := range scaleDropping {
		if err := w.Handshakes(ctx, scaleServer(i), 1); err != nil {
			return fmt.Errorf("fill accept queue: %w", err)
		}
	}
	if err := scaleStart(ctx, tr, scaleListeners, record); err != nil {
		return err
	}
	for _, load := range []string{scaleQuiet, scaleChurning} {
		r, err := scaleDelays(ctx, w, tr, load)
		if err != nil {
			return err
		}
		fmt.Fprintf(log, "bench: %s: %d listeners, %s: %.0f processes a second, delay %.0f ms, 99 %% within %.0f ms, peak %.1f MB\n",
			record.where, scaleListeners, load, r.Processes, 1e3*r.Delay, 1e3*r.Delay99, float64(r.Resident)/1e6)
		if err := record.add(r); err != nil {
			return err
		}
	}
	return nil
}

// scaleServer is one of the listeners that drop, spread over all there are.
func scaleServer(i int) netip.AddrPort {
	return netip.AddrPortFrom(world.ServerAddr4, uint16(scaleFirst+i*(scaleListeners/scaleDropping)))
}

// scaleStart measures the time from exec to ready a few times.
func scaleStart(ctx context.Context, tr tracer.Tracer, listeners int, record recorder) error {
	for round := 1; round <= scaleStarts; round++ {
		r, err := tr.Start(ctx)
		if err != nil {
			return err
		}
		resident, _, err := r.Memory()
		if _, stopErr := r.Stop(); stopErr != nil || err != nil {
			return errors.Join(err, stopErr)
		}
		err = record.add(result{Kind: "scale", Tracer: tr.Name, Round: round, Listeners: listeners,
			Seconds: r.ToReady.Seconds(), Resident: resident})
		if err != nil {
			return err
		}
		time.Sleep(traffic.Settle)
	}
	return nil
}

// scaleDelays drops SYNs on many listeners, one by one, and measures how long after
// each drop its line is there to be read.
func scaleDelays(ctx context.Context, w *world.World, tr tracer.Tracer, load string) (got result, err error) {
	var churner *churn.Server
	if load == scaleChurning {
		churner, err = churn.Start(w, churn.Config{
			Comm: "churner", Port: scaleFirst - 1, PerSecond: scaleChurn,
		})
		if err != nil {
			return got, err
		}
		defer func() { err = errors.Join(err, churner.Close()) }()
	}
	lines, to, err := os.Pipe()
	if err != nil {
		return got, err
	}
	defer lines.Close()
	r, err := tr.StartInto(ctx, to)
	if err != nil {
		return got, err
	}
	delays := make(chan []float64, 1)
	go func() { delays <- readDelays(lines) }()
	begin := time.Now()
	var churnedBefore, churned churn.Done
	if churner != nil {
		if churnedBefore, err = churner.Done(); err != nil {
			return got, errors.Join(err, r.Abandon())
		}
	}
	var frames [][]byte
	for i := range scaleDrops {
		frames = append(frames, w.SYNFrames(scaleServer(i%scaleDropping), 1)...)
	}
	for _, frame := range frames {
		if err := w.Inject([][]byte{frame}); err != nil {
			return got, errors.Join(err, r.Abandon())
		}
		time.Sleep(time.Duration(rand.Int64N(int64(2 * scalePause)))) // in step with no timer of synspy's
	}
	took := time.Since(begin).Seconds()
	if churner != nil {
		if churned, err = churner.Done(); err != nil {
			return got, errors.Join(err, r.Abandon())
		}
	}
	resident, kernel, err := r.Memory()
	if _, stopErr := r.Stop(); err != nil || stopErr != nil {
		return got, errors.Join(err, stopErr)
	}
	all := <-delays
	if len(all) != scaleDrops {
		return got, fmt.Errorf("%d records of %d drops", len(all), scaleDrops)
	}
	return result{Kind: "scale", Tracer: tr.Name, Workload: load, CPUs: runtime.NumCPU(), Listeners: scaleListeners,
		Drops: scaleDrops, Processes: float64(len(churned.PIDs)-len(churnedBefore.PIDs)) / took,
		Delay: figures.Quantile(all, 0.5), Delay99: figures.Quantile(all, 0.99), Resident: resident, BPF: kernel}, nil
}

// readDelays reads records to their end and gives how old each drop was when it was
// read, in seconds.
func readDelays(from io.Reader) (delays []float64) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		now := time.Now()
		var record struct {
			Type string
			Time time.Time
		}
		if json.Unmarshal(lines.Bytes(), &record) == nil && record.Type == "drop" {
			delays = append(delays, now.Sub(record.Time).Seconds())
		}
	}
	return delays
}

// renderScale prints a table of the results of each machine.
func renderScale(w io.Writer, all []result) error {
	all = of(all, func(r result) bool { return r.Kind == "scale" })
	if len(all) == 0 {
		return nil
	}
	table := figures.NewTable(w, []string{"machine", "listeners", "processes a second", "exec to ready", "drop to line", "99 % within", "peak memory"})
	for _, series := range []struct {
		listeners int
		load      string
	}{{0, ""}, {scaleListeners, ""}, {scaleListeners, scaleQuiet}, {scaleListeners, scaleChurning}} {
		some := of(all, func(r result) bool { return r.Listeners == series.listeners && r.Workload == series.load })
		if len(some) == 0 {
			continue
		}
		text := func(decimals int, unit string, value func(result) float64) string {
			return strings.TrimPrefix(figures.SpreadOf(values(some, "scale", "", "", value)).Text(decimals, unit), "0"+unit)
		}
		row := []string{some[0].Where, fmt.Sprint(series.listeners), "", "", "", "",
			text(1, " MB", func(r result) float64 { return float64(r.Resident) / 1e6 })}
		if series.load == "" {
			row[3] = text(3, " s", func(r result) float64 { return r.Seconds })
		} else {
			row[2] = text(0, "", func(r result) float64 { return r.Processes })
			row[4] = text(0, " ms", func(r result) float64 { return 1e3 * r.Delay })
			row[5] = text(0, " ms", func(r result) float64 { return 1e3 * r.Delay99 })
		}
		if err := table.Append(row); err != nil {
			return fmt.Errorf("make table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	fmt.Fprintln(w)
	return nil
}

// scaleVerdict is about start-up, wherever it was measured.
func scaleVerdict(all []result) verdict {
	ready := figures.SpreadOf(values(of(all, func(r result) bool { return r.Listeners > 0 && r.Workload == "" }), "scale", "", "",
		func(r result) float64 { return r.Seconds }))
	return verdict{known: ready.N > 0, met: ready.Median < 1,
		target: fmt.Sprintf("ready in under a second with %d listeners", scaleListeners), got: ready.Text(2, " s")}
}
