// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
)

// result is one measurement, a line of the file that is kept. What does not
// belong to its kind is absent.
type result struct {
	Kind     string `json:"kind"` // machine, pair, start, memory, flood, program, scale
	Where    string `json:"where"`
	Kernel   string `json:"kernel,omitempty"`
	CPUs     int    `json:"cpus,omitempty"`
	Tracer   string `json:"tracer,omitempty"`
	Workload string `json:"workload,omitempty"`
	Round    int    `json:"round,omitempty"`

	// pair: frames per second without a tracer just before and just after, and
	// with it; see times.rate.
	Off [2]float64 `json:"off,omitzero"`
	On  float64    `json:"on,omitempty"`
	// The same by the clock.
	WallOff [2]float64 `json:"wall_off,omitzero"`
	WallOn  float64    `json:"wall_on,omitempty"`

	Seconds float64 `json:"seconds,omitempty"` // start: exec to ready

	Resident uint64 `json:"resident,omitempty"` // memory: bytes, VmHWM
	BPF      uint64 `json:"bpf,omitempty"`      // memory: bytes, maps and programs

	// flood: drops made; records a second later, and drops accounted for by
	// then; both again when the tracer had ended.
	Drops        int    `json:"drops,omitempty"`
	Backend      string `json:"backend,omitempty"`
	Printed      int    `json:"printed,omitempty"`
	Counted      int    `json:"counted,omitempty"`
	FinalPrinted int    `json:"final_printed,omitempty"`
	FinalCounted int    `json:"final_counted,omitempty"`
	Lost         int    `json:"lost,omitempty"`
	Balanced     bool   `json:"balanced,omitempty"`

	// program: of BPF statistics, during one burst of frames.
	Program string `json:"program,omitempty"`
	Frames  int    `json:"frames,omitempty"`
	Runs    uint64 `json:"runs,omitempty"`
	Nanos   uint64 `json:"nanos,omitempty"`

	// scale: how many listeners and short-lived processes a second there were;
	// seconds from a drop to its line, median and 99th percentile. Without
	// these it is a start.
	Listeners int     `json:"listeners,omitempty"`
	Processes float64 `json:"processes,omitempty"`
	Delay     float64 `json:"delay,omitempty"`
	Delay99   float64 `json:"delay99,omitempty"`
}

// untraced is the mean of the bursts around the one with a tracer.
func (r result) untraced() float64 { return math.Sqrt(r.Off[0] * r.Off[1]) }

// ratio is the part of it that is left with the tracer.
func (r result) ratio() float64 { return r.On / r.untraced() }

// wallUntraced and wallRatio are the same by the clock.
func (r result) wallUntraced() float64 { return math.Sqrt(r.WallOff[0] * r.WallOff[1]) }
func (r result) wallRatio() float64    { return r.WallOn / r.wallUntraced() }

// recorder writes results as they come.
type recorder struct {
	file  *os.File
	where string
}

func (r recorder) add(res result) error {
	res.Where = r.where
	line, err := json.Marshal(res)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	return nil
}

func readResults(in io.Reader) ([]result, error) {
	var all []result
	for lines := bufio.NewScanner(in); ; {
		if !lines.Scan() {
			return all, lines.Err()
		}
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return all, fmt.Errorf("read results: %w", err)
		}
		all = append(all, r)
	}
}
