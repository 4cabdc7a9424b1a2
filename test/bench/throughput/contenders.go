// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"strconv"
	"time"

	"github.com/synspy/synspy/test/bench/tracer"
)

// Names of the tracers in results.
const (
	synspyName    = "synspy"
	synspyAllName = "synspy_rate_0"
	peerName      = "peer"
	emptyName     = "empty"
)

// tracers gives those that can be run: bpftrace and its script may be missing, and not
// every kernel lets the empty program attach.
func (c config) tracers() []tracer.Tracer {
	port := strconv.Itoa(int(c.port))
	trace := []string{c.synspy, "trace", "--port", port}
	const ready = "synspy: watching on"
	all := []tracer.Tracer{
		// Drops are counted from JSON, which is more work for synspy than the table.
		{Name: synspyName, Argv: trace, Ready: ready, Flood: readJSON, FloodArgs: []string{"-o", "json"}},
		{Name: synspyAllName, Argv: append(trace[:len(trace):len(trace)], "--rate", "0"), Ready: ready, Flood: readJSON, FloodArgs: []string{"-o", "json"}},
	}
	if c.peer != "" {
		all = append(all, tracer.Tracer{Name: peerName, Argv: []string{"bpftrace", c.peer}, Ready: "READY", Flood: readScript})
	}
	if c.empty != "" {
		all = append(all, tracer.Tracer{Name: emptyName, Argv: []string{c.empty, "empty"}, Ready: "READY", ThroughputOnly: true})
	}
	return all
}

// config is what one machine is to measure.
type config struct {
	synspy string // path
	peer   string // path of the script, or empty
	empty  string // path of this program, or empty where its "bench empty" cannot attach
	port   uint16
	pairs  int
	floods int           // per tracer
	budget time.Duration // no further round is begun after this long
}
