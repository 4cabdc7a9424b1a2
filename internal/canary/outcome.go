// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// classify says how an attempt ended.
func classify(record *event.Canary, err error, info *unix.TCPInfo) {
	sent := record.Retransmits != nil // the kernel took the SYN
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) &&
		!errors.Is(err, context.Canceled) &&
		!errors.Is(err, context.DeadlineExceeded) {
		record.Error = err.Error()
	}
	answer := event.CanaryAnswerICMP
	if info.Segs_in > 0 {
		answer = event.CanaryAnswerRST
	}
	switch {
	case err == nil:
		record.Outcome = event.CanaryConnected
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		record.Outcome = event.CanaryTimeout
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		record.Outcome = event.CanaryPending
	case errors.Is(err, unix.ECONNREFUSED):
		record.Outcome, record.Answer = event.CanaryRefused, answer
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		record.Outcome = event.CanaryReset // before it could be looked at
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH),
		errors.Is(err, unix.EPROTO),
		errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.EACCES):
		record.Outcome = event.CanaryUnreachable
	case errors.Is(err, unix.EINVAL) && !sent: // fib_props
		record.Outcome, record.Error = event.CanaryUnreachable,
			"this machine has a blackhole route there"
	default:
		record.Outcome = event.CanaryFailed
	}
}

// answered reports whether a packet of the server's side ended it.
func answered(r event.Canary) bool {
	return r.Outcome == event.CanaryConnected || r.Outcome == event.CanaryReset ||
		r.Outcome == event.CanaryRefused
}

const (
	slow       = 200 * time.Millisecond // deserves a word although no SYN was sent again
	initialRTO = 1000                   // ms until a SYN is sent again: TCP_TIMEOUT_INIT
)

// note says what an attempt says, where it is not simply connected.
func note(r event.Canary) string {
	var retransmits uint32
	if r.Retransmits != nil {
		retransmits = *r.Retransmits
	}
	switch r.Outcome {
	case event.CanaryConnected:
		return connectedNote(r, retransmits)
	case event.CanaryRefused:
		if r.Answer == event.CanaryAnswerICMP {
			return "SYN answered by ICMP port unreachable: a firewall rejects"
		}
		return r.Outcome.Meaning()
	case event.CanaryTimeout, event.CanaryPending:
		if r.Retransmits != nil {
			return fmt.Sprintf("no answer to %s", syns(retransmits+1))
		}
		return r.Outcome.Meaning()
	case event.CanaryUnreachable, event.CanaryFailed, event.CanaryUnresolved:
		if r.Error != "" {
			return r.Error
		}
		return r.Outcome.Meaning()
	default:
		return r.Outcome.Meaning()
	}
}

func connectedNote(r event.Canary, retransmits uint32) string {
	latency, rtt := *r.LatencyMs, 0.0
	if r.RTTMs != nil {
		rtt = *r.RTTMs
	}
	switch {
	case retransmits > 0 && rtt >= initialRTO:
		return "slow network, not loss: the answer took longer than the retransmission"
	case retransmits == 1:
		return "the first SYN, or its answer, was dropped or lost"
	case retransmits > 0:
		return fmt.Sprintf("the first %s, or their answers, were dropped or lost",
			syns(retransmits))
	case latency < float64(slow.Milliseconds()):
		return ""
	case rtt > 0 && latency > 2*rtt:
		return "no SYN was sent again and the round trip was short: this machine was late to notice"
	default:
		return "slow network: no SYN was sent again, the round trip took that long"
	}
}

func syns(n uint32) string {
	if n == 1 {
		return "1 SYN"
	}
	return strconv.FormatUint(uint64(n), 10) + " SYNs"
}

// zone is the interface's number in a link-local address.
func zone(addr netip.Addr) uint32 {
	if addr.Zone() == "" {
		return 0
	}
	if n, err := strconv.ParseUint(addr.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	device, err := net.InterfaceByName(addr.Zone())
	if err != nil {
		return 0 // connect() then says what is wrong
	}
	return uint32(device.Index)
}
