// SPDX-License-Identifier: Apache-2.0

package event

// Counters is the listen-path counters of one network namespace (type
// "counters"), read without BPF. In a watch each record covers one interval.
type Counters struct {
	Header
	Time      Time           `json:"time,omitzero"`
	NetNS     uint64         `json:"netns"`
	Name      string         `json:"name,omitempty"` // in /run/netns
	PIDs      []uint32       `json:"pids,omitempty"` // the first few processes in it, ascending
	Comm      string         `json:"comm,omitempty"` // of the first of them
	Cgroup    *Cgroup        `json:"cgroup,omitempty"`
	Container *Container     `json:"container,omitempty"`
	Pod       *Pod           `json:"pod,omitempty"`
	Counters  []CounterValue `json:"counters"`
}

// CounterValue is one counter of one namespace. Delta is what it moved by since
// the reading before, Rate the same per second; both are nil where there was no
// such reading. Value counts since the namespace was made.
type CounterValue struct {
	Name    string   `json:"name"`
	Value   uint64   `json:"value"`
	Delta   *uint64  `json:"delta,omitempty"`
	Rate    *float64 `json:"rate,omitempty"`
	Shared  bool     `json:"shared"`
	Meaning string   `json:"meaning,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}
