// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/ingress"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/lab/world/worldtest"
)

// elsewhere is what the kernel counts outside the closed list while a scenario
// is played. Every name that one of them has must stay put in the others, and
// an IPv6 twin counts the same where it is not listed.
var elsewhere = map[string]world.Stats{
	"no-listener":               {"TcpOutRsts": 10}, // 7 SYNs and 3 strays
	"time-wait":                 {"TcpPassiveOpens": 4, "TCPACKSkippedTimeWait": 1},
	"netfilter-drop":            {},
	"netfilter-drop-prerouting": {},
	"netfilter-reject":          {}, // nf_send_reset does not count its RST
	"netfilter-reject-icmp":     {},
	"netfilter-reject-admin":    {},
	"netfilter-ingress":         {},
	"netfilter-queue":           {},
	"rp-filter":                 {"IPReversePathFilter": 4},
	"checksum": {"TcpPassiveOpens": 1, "TcpInCsumErrors": 2,
		"IpExtInCsumErrors": 1},
	"checksum-ipv6":        {"TcpPassiveOpens": 1, "TcpInCsumErrors": 2},
	"cpu-backlog":          {},
	"policy":               {"TCPMinTTLDrop": 3},
	"policy-xfrm":          {"XfrmInTmplMismatch": 3},
	"socket-filter":        {"TcpPassiveOpens": 1},
	"socket-filter-cgroup": {"TcpPassiveOpens": 1},
	"kernel-other":         {"TcpPassiveOpens": 1},
	"other-host":           {},
	"outbound":             {"TcpActiveOpens": 2},
	"sniffer":              {"TcpPassiveOpens": 10, "TcpOutRsts": 3},
}

// answeredLater are scenarios in which a client that lost a SYN gets a SYN-ACK
// to another, later one.
var answeredLater = []string{"time-wait", "checksum"}

// TestIngress plays the scenarios with a packet socket on the namespace's wire:
// the RSTs and SYN-ACKs that left must be those that the records promise,
// whatever the scenario itself has looked at.
func TestIngress(t *testing.T) {
	for _, s := range ingress.Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			name := strings.TrimSuffix(s.Name, "-ipv6")
			want, ok := elsewhere[s.Name]
			if !ok {
				want, ok = elsewhere[name]
			}
			if !ok {
				t.Fatal("nothing is said about its counters")
			}
			w := worldtest.New(t)
			wire := tap(t, w)
			before, err := w.Stats()
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.Play(t.Context(), w, t.Logf)
			if errors.Is(err, world.ErrCannotHold) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			moves := make(world.Stats)
			for _, others := range elsewhere {
				for counter := range others {
					moves[counter] = want[counter]
				}
			}
			if err := w.WantMoved(before, moves); err != nil {
				t.Error(err)
			}
			checkWire(t, e, wire(), slices.Contains(answeredLater, name))
			checkHandshakes(t, e)
		})
	}
}

// answers are the RSTs (or ICMP errors, which refuse as well) and SYN-ACKs that left for a client.
type answers struct{ resets, synAcks int }

func checkWire(t *testing.T, e scenario.Expectation, left map[netip.AddrPort]answers,
	answeredLater bool) {
	t.Helper()
	records := make(map[netip.AddrPort]answers) // how many of them are resets
	for _, r := range e.Records {
		for _, c := range r.Clients {
			n := records[c]
			if r.Action == event.ActionReset {
				n.resets++
			}
			if r.Stage == event.StageAck {
				n.synAcks++
			}
			records[c] = n
		}
	}
	for client, want := range records {
		got := left[client]
		if got.resets != want.resets {
			t.Errorf("%d RSTs left for client %s, the records say %d", got.resets,
				client, want.resets)
		}
		if !answeredLater && got.synAcks != want.synAcks {
			t.Errorf("%d SYN-ACKs left for client %s, the records say %d", got.synAcks,
				client, want.synAcks)
		}
	}
}

// checkHandshakes counts them in another way: every first attempt is one.
func checkHandshakes(t *testing.T, e scenario.Expectation) {
	t.Helper()
	n := 0
	for _, r := range e.Records {
		for _, attempt := range r.Attempts {
			if attempt == 1 {
				n++
			}
		}
	}
	if n != e.Handshakes {
		t.Errorf("%d first attempts, %d handshakes", n, e.Handshakes)
	}
}

// tap opens a packet socket in the namespace and returns a function that says
// what has left through the TUN device since.
func tap(t *testing.T, w *world.World) func() map[netip.AddrPort]answers {
	t.Helper()
	var socket *os.File
	if err := w.Do(func() (err error) {
		socket, err = ingress.OpenSniffer(16 << 20)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return func() map[netip.AddrPort]answers {
		t.Helper()
		left := make(map[netip.AddrPort]answers)
		conn, err := socket.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 65536)
		err = conn.Read(func(fd uintptr) bool {
			for {
				n, err := readPacket(int(fd), buf)
				if err != nil {
					return true // no more of them
				}
				if client, ok := refusedByICMP(buf[:n]); ok {
					a := left[client]
					a.resets++
					left[client] = a
				}
				s, err := world.ParseSegment(buf[:n])
				if err != nil {
					continue
				}
				a := left[s.Dst]
				switch {
				case s.Flags&world.FlagRST != 0:
					a.resets++
				case s.Flags&(world.FlagSYN|world.FlagACK) == world.FlagSYN|world.FlagACK:
					a.synAcks++
				}
				left[s.Dst] = a
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
}

// refusedByICMP is whose segment an ICMP destination unreachable is about.
func refusedByICMP(b []byte) (client netip.AddrPort, ok bool) {
	const v4, v6 = 20, 40 // their headers, without options
	switch {
	case len(b) >= 2*v4+16 && b[0] == 0x45 && b[9] == unix.IPPROTO_ICMP && b[v4] == 3:
		inner := b[v4+8:]
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(inner[12:16])),
			binary.BigEndian.Uint16(inner[v4:])), true
	case len(b) >= 2*v6+16 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_ICMPV6 && b[v6] == 1:
		inner := b[v6+8:]
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(inner[8:24])),
			binary.BigEndian.Uint16(inner[v6:])), true
	}
	return client, false
}

func readPacket(fd int, buf []byte) (int, error) {
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	return n, err
}
