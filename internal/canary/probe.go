// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// Whether the server's kernel has the connection too shows one round trip later,
// when it acknowledges our FIN. It is asked for that long: the FIN is sent three
// times then, after 0, 0.2 and 0.6 s (TCP_RTO_MIN).
const (
	settleAtLeast = time.Second
	settleRTTs    = 6
)

// States of a TCP socket in struct tcp_info (linux/net/tcp_states.h).
const (
	stateSynSent  = 2
	stateFinWait1 = 4
	stateClosing  = 11 // their FIN came, ours is unacknowledged
)

// attempt is one connection on its way. The kernel does the handshake; this only
// looks.
type attempt struct {
	file  *os.File // of the socket; closes it
	began time.Time
	info  unix.TCPInfo
}

// Probe connects to the address and closes the connection at once. It waits for
// an answer until the timeout or the context's end, and at most a second longer
// to see whether the server has the connection as well. The record has the target
// and number that the caller gives.
func Probe(ctx context.Context, to netip.AddrPort, timeout time.Duration) event.Canary {
	a := attempt{began: time.Now()}
	record := event.Canary{Header: event.Head("canary"), Time: event.Time{Time: a.began},
		Server: &event.Endpoint{Addr: to.Addr(), Port: to.Port()}}
	err := a.connect(to)
	if err == nil {
		defer a.file.Close()
		err = a.wait(ctx, timeout)
	}
	took := time.Since(a.began)
	if a.file != nil {
		record.Client = a.local()
		retransmits := a.info.Total_retrans
		record.Retransmits = &retransmits
	}
	classify(&record, err, &a.info)
	if answered(record) {
		record.LatencyMs = milliseconds(took)
		if a.info.Rtt > 0 && record.Outcome == event.CanaryConnected {
			record.RTTMs = milliseconds(time.Duration(a.info.Rtt) * time.Microsecond)
		}
	} else {
		record.WaitedMs = milliseconds(took)
	}
	if record.Outcome == event.CanaryConnected {
		record.Outcome = a.settle(ctx)
	}
	record.Note = note(record)
	return record
}

// connect sends the first SYN.
func (a *attempt) connect(to netip.AddrPort) error {
	family, sockaddr := unix.AF_INET6,
		unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port()),
			ZoneId: zone(to.Addr())})
	if to.Addr().Is4() {
		family, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(),
			Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	a.began = time.Now()
	err = unix.Connect(fd, sockaddr)
	// Only now: an unconnected socket is always "ready".
	a.file = os.NewFile(uintptr(fd), to.String())
	if err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		a.file.Close()
		a.file = nil
		return err
	}
	return nil
}

// wait returns nil once connected, os.ErrDeadlineExceeded without an answer in
// time, the context's error if that ended first, or why the kernel gave up. The
// socket's TCP_INFO is then that of this moment.
func (a *attempt) wait(ctx context.Context, timeout time.Duration) error {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	if err := a.file.SetDeadline(a.began.Add(timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = a.file.SetDeadline(time.Unix(1, 0)) }) // fails only once closed
	defer stop()
	failed := error(nil)
	err = raw.Write(func(fd uintptr) bool {
		failed = a.account(int(fd))
		return failed != nil || a.info.State != stateSynSent
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		control := raw.Control(func(fd uintptr) { failed = a.account(int(fd)) })
		switch {
		case control != nil:
			return control
		case failed == nil && a.info.State == stateSynSent && ctx.Err() != nil:
			return ctx.Err()
		case failed == nil && a.info.State == stateSynSent:
			return err
		}
		err = nil // it was answered meanwhile
	}
	return errors.Join(err, failed)
}

// account asks the kernel for its account of the socket, and for the error that it
// ended with.
func (a *attempt) account(fd int) error {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	a.info = *info
	pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if pending != 0 {
		return unix.Errno(pending)
	}
	return nil
}

// settle ends the connection as any client does, and tells by what comes back
// whether the server's kernel has it too: a listener with a full accept queue
// drops the handshake's last ACK, and all that follows, without a word
// (tcp_check_req), or resets it (tcp_abort_on_overflow).
func (a *attempt) settle(ctx context.Context) event.CanaryOutcome {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return event.CanaryConnected
	}
	rtt := time.Duration(a.info.Rtt) * time.Microsecond
	give := time.Now().Add(max(settleAtLeast, settleRTTs*rtt))
	pause := max(rtt/2, 100*time.Microsecond)
	for first := true; ; first = false {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if first {
				failed = unix.Shutdown(int(fd), unix.SHUT_WR)
			}
			if looked := a.account(int(fd)); looked != nil {
				failed = looked
			}
		})
		switch {
		case err != nil:
			return event.CanaryConnected
		case errors.Is(failed, unix.ECONNRESET), errors.Is(failed, unix.EPIPE),
			errors.Is(failed, unix.ENOTCONN):
			return event.CanaryReset
		case a.info.State != stateFinWait1 && a.info.State != stateClosing:
			return event.CanaryConnected
		case time.Now().After(give):
			return event.CanaryStalled
		}
		select {
		case <-ctx.Done(): // whether it stalls is not known: the handshake, as far as it is ours, was completed
			return event.CanaryConnected
		case <-time.After(pause):
		}
		pause = min(2*pause, 20*time.Millisecond)
	}
}

func (a *attempt) local() *event.Endpoint {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return nil
	}
	var address unix.Sockaddr
	if raw.Control(func(fd uintptr) {
		address, err = unix.Getsockname(int(fd))
	}) != nil || err != nil {
		return nil
	}
	switch sa := address.(type) {
	case *unix.SockaddrInet4:
		return &event.Endpoint{Addr: netip.AddrFrom4(sa.Addr), Port: uint16(sa.Port)}
	case *unix.SockaddrInet6:
		return &event.Endpoint{Addr: netip.AddrFrom16(sa.Addr).Unmap(),
			Port: uint16(sa.Port)}
	default:
		return nil
	}
}

func milliseconds(d time.Duration) *float64 {
	ms := float64(d.Microseconds()) / 1000
	return &ms
}
