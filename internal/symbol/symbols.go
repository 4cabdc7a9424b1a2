// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
)

// Limits of what is kept open between Watch and Close.
const (
	MaxProcesses = 1024
	maxFiles     = 2048
)

// ErrTooMany says that no more processes are watched.
var ErrTooMany = errors.New("too many processes to name the code of")

// Symbols names code of the processes that it was told to watch. Their files are opened when they
// are first seen, so that code of processes that end can be named as well. It is not for several
// goroutines at once.
type Symbols struct {
	log       *slog.Logger
	proc      string
	processes map[uint32]*process
	files     map[fileID]*os.File // nil: could not be opened
	dead      map[string]bool     // devices that do not answer
}

// New returns a Symbols that watches nobody yet.
func New(log *slog.Logger) *Symbols {
	return &Symbols{log: log, proc: "/proc", processes: make(map[uint32]*process),
		files: make(map[fileID]*os.File),
		dead:  make(map[string]bool)}
}

// Watch looks at a process, again if it is known: what it has mapped since is seen by that.
func (s *Symbols) Watch(pid uint32) error {
	p := s.processes[pid]
	if p == nil {
		if len(s.processes) >= MaxProcesses {
			return fmt.Errorf("watch process %d: %w", pid, ErrTooMany)
		}
		var err error
		if p, err = openProcess(s.proc, pid); err != nil {
			return err
		}
		s.processes[pid] = p
	}
	mappings, err := within(context.Background(), p.readMaps)
	if err != nil {
		return err
	}
	p.mappings = mappings
	for i := range p.mappings {
		m := &p.mappings[i]
		id := fileID{m.device, m.inode}
		if _, known := s.files[id]; m.inode == 0 || known || len(s.files) >= maxFiles ||
			s.dead[m.device] {
			continue
		}
		file, err := within(context.Background(), func(context.Context) (*os.File, error) {
			return openMapped(p.dir, p.root, m)
		})
		s.dead[m.device] = errors.Is(err, context.DeadlineExceeded)
		if err != nil {
			s.log.Debug("opening mapped code", "pid", pid, "path", m.path, "err", err)
		}
		s.files[id] = file
	}
	return nil
}

// Close closes all files.
func (s *Symbols) Close() {
	for _, p := range s.processes {
		p.close()
	}
	for _, file := range s.files {
		if file != nil {
			file.Close()
		}
	}
}
