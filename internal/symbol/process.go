// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// process is what is known of the code of one. Both files are tied to that very process: once it is
// gone, nothing below them is another one's.
type process struct {
	dir, root *os.File // root may be nil
	mappings  []mapping
}

func openProcess(proc string, pid uint32) (*process, error) {
	name := filepath.Join(proc, strconv.FormatUint(uint64(pid), 10))
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	p := &process{dir: os.NewFile(uintptr(fd), name)}
	if root, err := unix.Openat(fd, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC,
		0); err == nil {
		p.root = os.NewFile(uintptr(root), filepath.Join(name, "root"))
	}
	return p, nil
}

// readMaps reads the mappings and adds those of before which are gone: code that was unmapped stays
// known, unless something else has its place.
func (p *process) readMaps(context.Context) ([]mapping, error) {
	file, err := openAt(p.dir, "maps")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	now, err := parseMaps(file)
	if err != nil {
		return nil, err
	}
	if len(now) == 0 {
		return nil, fmt.Errorf("read mappings of %s: there are none", p.dir.Name()) // it is about to be gone
	}
	return merge(now, p.mappings), nil
}

// merge adds the old mappings whose place is free.
func merge(now, before []mapping) []mapping {
	for _, old := range before {
		if len(now) >= 2*maxMappings {
			break
		}
		after, _ := slices.BinarySearchFunc(now, old.start, func(m mapping, at uint64) int {
			if m.end <= at {
				return -1
			}
			return 1
		})
		if after == len(now) || now[after].start >= old.end {
			now = slices.Insert(now, after, old)
		}
	}
	return now
}

func (p *process) close() {
	p.dir.Close()
	if p.root != nil {
		p.root.Close()
	}
}
