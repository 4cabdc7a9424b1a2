// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel/proc"
)

// polled is what an epoll instance waits for.
type polled struct {
	inodes map[uint64]bool // of the files in it, and in the instances in it
	whole  bool            // these are all
}

func (p *polled) has(inode uint64) bool { return p != nil && inode != 0 && p.inodes[inode] }

// maxNested is how many epoll instances within each other are followed: the kernel allows no more
// (EP_MAX_NESTS).
const maxNested = 5

// pollsOf reads what the epoll instance with a descriptor of the process waits for.
func pollsOf(dir int, number string) (p *polled, err error) {
	p = &polled{inodes: make(map[uint64]bool)}
	p.whole, err = p.read(dir, number, maxNested)
	return p, err
}

// read reports whether all was read.
func (p *polled) read(dir int, number string, depth int) (bool, error) {
	var own unix.Stat_t
	text, err := proc.ReadAt(dir, "fdinfo/"+number)
	if err == nil {
		err = unix.Fstatat(dir, "fd/"+number, &own, 0)
	}
	if err != nil || len(text) >= proc.MaxText || depth == 0 {
		return false, err
	}
	whole := true
	for _, f := range parseEpoll(text) {
		p.inodes[f.inode] = true
		if f.inode != own.Ino {
			continue
		}
		// Epoll instances, timers, signals and the like have one inode between them. What
		// had the number when it was added need not have it now, nor in this process.
		buf := make([]byte, 64)
		n, err := unix.Readlinkat(dir, "fd/"+f.number, buf)
		link := string(buf[:max(n, 0)])
		switch {
		case err != nil, !strings.HasPrefix(link, "anon_inode:"):
			whole = false
		case link == "anon_inode:[eventpoll]":
			inner, err := p.read(dir, f.number, depth-1)
			if err != nil {
				return false, err
			}
			whole = whole && inner
		}
	}
	return whole, nil
}

// inEpoll is a file in an epoll instance: the descriptor by which it was added, and its inode.
type inEpoll struct {
	number string
	inode  uint64
}

// parseEpoll reads the fdinfo of an epoll instance:
// "tfd:        5 events:       19 data:                5 pos:0 ino:3a sdev:8".
func parseEpoll(text []byte) (files []inEpoll) {
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "tfd:")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		_, rest, _ = strings.Cut(rest, " ino:")
		hex, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if inode, err := strconv.ParseUint(hex, 16, 64); err == nil && inode != 0 {
			files = append(files, inEpoll{number, inode})
		}
	}
	return files
}
