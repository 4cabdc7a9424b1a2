// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// cpuIncidents are those of a process that would accept if it ran.
func cpuIncidents() []Incident {
	return []Incident{
		{
			Name: "diagnose-throttled", Title: "the process has used up its CPU quota",
			Finding: "cpu_throttled",
			Explain: "A server with listen(fd, 8) needs 20 ms of CPU time for each of 20 clients a second, and its cgroup may use 2 ms in 100.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-throttled",
					server.ListenConfig{Backlog: 8, Accept: true,
						Busy: 20 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				if err := w.LimitCPU(s.PID, 2*time.Millisecond,
					100*time.Millisecond); err != nil {
					return nil, err
				}
				log("process %d may use 2 ms of CPU time in 100 ms", s.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
		{
			Name: "diagnose-starved", Title: "the process waits for a CPU",
			Finding: "cpu_starved",
			Explain: "A server with listen(fd, 8) and the lowest priority shares a CPU with 16 threads that compute, while 20 clients a second come.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-starved",
					server.ListenConfig{Backlog: 8, Accept: true,
						Busy: 5 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				hogs, err := server.Start(w,
					server.Config{Comm: []byte("lab-hog"), Hogs: 16})
				if err != nil {
					return nil, err
				}
				if err := starve(s.PID, hogs.PID); err != nil {
					return nil, err
				}
				log("process %d shares a CPU with the 16 threads of process %d",
					s.PID, hogs.PID)
				return steady(w, world.Server4, 50*time.Millisecond, 1), nil
			},
		},
	}
}

// starve puts both processes on the last CPU that this one may use, the first with the
// lowest priority.
func starve(pid, hogs int) error {
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	for _, p := range []int{pid, hogs} {
		if err := world.EachThread(p,
			func(tid int) error {
				return unix.SchedSetaffinity(tid,
					&one)
			}); err != nil {
			return fmt.Errorf("set CPU affinity of process %d: %w", p, err)
		}
	}
	// Also of the hogs: who runs this may have been started with another.
	for p, nice := range map[int]int{pid: 19, hogs: 0} {
		if err := world.EachThread(p,
			func(tid int) error {
				return unix.Setpriority(unix.PRIO_PROCESS, tid,
					nice)
			}); err != nil {
			return fmt.Errorf("set priority of process %d: %w", p, err)
		}
	}
	return nil
}
