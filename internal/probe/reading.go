// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"golang.org/x/sys/unix"
)

// gatherTime bounds how long a record waits in the ring buffer for others.
const gatherTime = 50 * time.Millisecond

// atOnce is after how many messages Read looks at the time while more come.
const atOnce = 256

// Read hands every message to f until the context ends or f returns an error. tick is called after
// messages came, at most gatherTime after the first of them, and whenever so much time has passed
// without.
//
// The kernel side wakes the reader for the first record in an empty ring buffer and when much
// waits. The reader sleeps as the runtime's other goroutines do: one that is blocked in a system
// call has the runtime's own watch run as well, which cost a trace that had nothing to do most of
// its CPU time.
func (p *Probe) Read(ctx context.Context, f func(*message.Message) error, tick func() error,
	every time.Duration,
) error {
	alarm, err := newRingAlarm(p.Collection.Maps["ring"])
	if err != nil {
		return fmt.Errorf("wait for the ring buffer: %w", err)
	}
	defer alarm.close()
	defer context.AfterFunc(ctx, alarm.ring)()
	waits := func() int { return p.reader.AvailableBytes() }
	much := p.reader.BufferSize() / load.WakeupFraction
	p.reader.SetDeadline(time.Unix(0, 0)) // it is read, never waited for
	var read time.Time
	for ctx.Err() == nil {
		next := time.Now().Add(every)
		if alarm.await(ctx, next, func(bool) bool { return waits() > 0 }) {
			gathered := earlier(read.Add(gatherTime), next)
			alarm.await(ctx, gathered,
				func(woken bool) bool { return woken || waits() >= much })
		}
		if read = time.Now(); waits() > 0 {
			if err := p.drain(f, read.Add(gatherTime)); err != nil {
				return err
			}
		}
		if err := tick(); err != nil {
			return err
		}
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// drain hands over what is in the ring buffer, until about then if more comes all the time.
func (p *Probe) drain(f func(*message.Message) error, until time.Time) error {
	var (
		record  ringbuf.Record
		message message.Message
	)
	for n := 1; ; n++ {
		err := p.reader.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read ring buffer: %w", err)
		}
		if !message.Decode(record.RawSample) {
			return fmt.Errorf("decode message of %d bytes: unknown kind",
				len(record.RawSample))
		}
		if err := f(&message); err != nil {
			return err
		}
		if n%atOnce == 0 && time.Now().After(until) {
			return nil
		}
	}
}

// ringAlarm tells when the kernel side wakes whoever reads the ring buffer.
type ringAlarm struct {
	file *os.File
	conn syscall.RawConn
}

func newRingAlarm(ring *ebpf.Map) (*ringAlarm, error) {
	fd, err := unix.FcntlInt(uintptr(ring.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or the runtime does not wait for it
		return nil, errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "ring")
	conn, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // whether it can be waited for
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &ringAlarm{file, conn}, nil
}

// await waits until enough says so, which is asked at once and when woken, or until then, or until
// the context ends; it returns whether enough did.
func (a *ringAlarm) await(ctx context.Context, until time.Time, enough func(woken bool) bool) bool {
	_ = a.file.SetReadDeadline(until) // it can be set, or there is no alarm
	if ctx.Err() != nil {             // after the deadline was set: ring may have set it before
		return false
	}
	woken := false
	err := a.conn.Read(func(uintptr) bool {
		is := enough(woken)
		woken = true
		return is
	})
	return err == nil
}

// ring ends await.
func (a *ringAlarm) ring() { _ = a.file.SetReadDeadline(time.Now()) }

func (a *ringAlarm) close() { _ = a.file.Close() }
