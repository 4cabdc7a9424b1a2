// SPDX-License-Identifier: Apache-2.0

package event

// Thread is what one thread of a process was doing when it was sampled, as
// /proc/PID/task/TID tells. Times are in nanoseconds unless the name says
// otherwise; nil and empty fields are unknown.
type Thread struct {
	TID     uint32   `json:"tid"`
	Comm    string   `json:"comm,omitempty"`
	State   string   `json:"state,omitempty"`   // a letter: R runs or would, S sleeps, D sleeps deeply, T stopped, t traced, Z dead
	Syscall *Syscall `json:"syscall,omitempty"` // absent while it runs in user space, or is about to
	Stack   []string `json:"stack,omitempty"`   // the kernel's functions, innermost first
	// Accepts says how it is known that this thread serves the listener: one of
	// the Accepts constants.
	Accepts string `json:"accepts,omitempty"`

	OnCPUNs    *uint64 `json:"on_cpu_ns,omitempty"`    // in its whole life
	RunDelayNs *uint64 `json:"run_delay_ns,omitempty"` // that it waited for a CPU, likewise
	// OffCPUMs is how long it has not run at the least: between samples.
	OffCPUMs *uint64 `json:"off_cpu_ms,omitempty"`
	// Since the sample before, which was DuringMs earlier.
	DuringMs *uint64 `json:"during_ms,omitempty"`
	RanNs    *uint64 `json:"ran_ns,omitempty"`
	WaitedNs *uint64 `json:"waited_ns,omitempty"` // for a CPU
}

// Ways to know that a thread serves a listener. A thread in poll, select or
// io_uring_enter waits for something that /proc does not name: it has none.
const (
	AcceptsInAccept = "accept"      // it is in accept() on the listener
	AcceptsInEpoll  = "epoll"       // it waits for an epoll instance that has the listener
	AcceptsAlone    = "only_thread" // its process has no other
)

// Syscall is the system call that a thread is in.
type Syscall struct {
	Name   string   `json:"name,omitempty"` // absent for one that synspy does not know
	Number int64    `json:"number"`
	Args   []string `json:"args,omitempty"` // six registers in hexadecimal, whether the call takes them or not
}

// CPU is what a process's cgroup lets it use. The numbers are of the nearest
// cgroup, upwards, that has a quota; Pressure is of the process's v2 cgroup.
type CPU struct {
	Cgroup      string  `json:"cgroup,omitempty"` // path of the one with the quota
	Dir         string  `json:"dir,omitempty"`    // where that is mounted here: in it are the files that set the quota
	V1          bool    `json:"v1,omitempty"`     // it is of a hierarchy of version 1
	QuotaUs     *uint64 `json:"quota_us,omitempty"`
	PeriodUs    *uint64 `json:"period_us,omitempty"`
	Periods     *uint64 `json:"periods,omitempty"`      // since it was made
	Throttled   *uint64 `json:"throttled,omitempty"`    // of them, those in which the quota ran out
	ThrottledNs *uint64 `json:"throttled_ns,omitempty"` // summed over its CPUs
	// Since the sample before, which was DuringMs earlier.
	DuringMs          *uint64   `json:"during_ms,omitempty"`
	PeriodsDuring     *uint64   `json:"periods_during,omitempty"`
	ThrottledDuring   *uint64   `json:"throttled_during,omitempty"`
	ThrottledNsDuring *uint64   `json:"throttled_ns_during,omitempty"`
	Pressure          *Pressure `json:"pressure,omitempty"`
}

// Pressure is how long tasks of a cgroup waited for a CPU since it was made, in
// microseconds: some of them, or all that were not idle. The During fields are
// since the sample before.
type Pressure struct {
	SomeUs       *uint64 `json:"some_us,omitempty"`
	FullUs       *uint64 `json:"full_us,omitempty"`
	SomeUsDuring *uint64 `json:"some_us_during,omitempty"`
	FullUsDuring *uint64 `json:"full_us_during,omitempty"`
}
