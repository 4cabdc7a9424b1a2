// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/world"
)

// probing is a synspy canary of one probe that runs in a world's namespace.
type probing struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Scanner
}

func startCanary(t *testing.T, w *world.World, to netip.AddrPort, args ...string) *probing {
	t.Helper()
	cmd := exec.Command(program,
		append([]string{"canary", to.String(), "--count", "1", "-o", "json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, w.Do(cmd.Start)) // a child has the namespace of the thread that makes it
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &probing{t, cmd, bufio.NewScanner(stdout)}
}

// record waits for the probe's end.
func (p *probing) record() event.Canary {
	p.t.Helper()
	var r event.Canary
	if !p.out.Scan() {
		p.t.Fatal("no record: ", p.out.Err())
	}
	must(p.t, json.Unmarshal(p.out.Bytes(), &r))
	if r.Type != "canary" || r.Retransmits == nil {
		p.t.Fatalf("got %s", p.out.Bytes())
	}
	return r
}

// listenIn makes a listener of this process in the namespace: it accepts when the
// test does. Its accept queue holds one.
func listenIn(t *testing.T, w *world.World, filter []unix.SockFilter) (fd int) {
	t.Helper()
	must(t, w.Do(func() (err error) {
		fd, err = listen(port, 0)
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	if filter != nil {
		must(t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
	}
	return fd
}

// onlySYNs is a filter that lets pass SYNs, and everything from one port. It sees
// packets from their TCP header on.
func onlySYNs(port uint32) []unix.SockFilter {
	const syn = 2
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: port, Jt: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
}

// closing reports whether a client of the port is connected as far as it knows, and
// waits for its FIN to be acknowledged.
func closing(t *testing.T, w *world.World) bool {
	t.Helper()
	var text []byte
	must(t, w.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/tcp")
		return err
	}))
	const finWait1 = "04"
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port)) && f[3] == finWait1 {
			return true
		}
	}
	return false
}

// soon waits for what must happen; it only gives up on a failure.
func soon(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never happened")
		}
	}
}

// TestCanaryRetransmit: the first SYN meets a full accept queue. When the second
// is sent the queue has room, and the record says that by the kernel's word.
func TestCanaryRetransmit(t *testing.T) {
	w := newWorld(t)
	fd := listenIn(t, w, nil)
	before := counters(t, w)
	fill(t, w, server4, 0)
	p := startCanary(t, w, server4, "--timeout", "60s")
	soon(t, func() bool { return moved(t, w, before, event.CounterListenOverflows) > 0 })
	conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	must(t, err)
	defer unix.Close(conn)
	r := p.record()
	if r.Outcome != event.CanaryConnected || *r.Retransmits == 0 || *r.LatencyMs < 900 ||
		r.RTTMs == nil || *r.RTTMs > 900 {
		t.Errorf("%+v", r)
	}
	if n := moved(t, w, before, event.CounterListenOverflows); n != int(*r.Retransmits) {
		t.Errorf("the kernel dropped %d SYNs, the canary sent %d again", n, *r.Retransmits)
	}
}

// TestCanaryTimeout: a queue that stays full, and an address that nobody has.
func TestCanaryTimeout(t *testing.T) {
	w := newWorld(t)
	listenIn(t, w, nil)
	fill(t, w, server4, 0)
	before := counters(t, w)
	nobody := netip.AddrPortFrom(netip.MustParseAddr("10.99.0.200"), port)
	full, lost := startCanary(t, w, server4, "--timeout", "1500ms"),
		startCanary(t, w, nobody, "--timeout", "1500ms")
	for _, p := range []*probing{full, lost} {
		r := p.record()
		if r.Outcome != event.CanaryTimeout || *r.Retransmits == 0 || r.WaitedMs == nil ||
			*r.WaitedMs < 1500 || r.LatencyMs != nil {
			t.Errorf("%+v", r)
		}
		if p == full &&
			moved(t, w, before, event.CounterListenOverflows) != int(*r.Retransmits)+1 {
			t.Errorf("the kernel dropped %d SYNs, the canary sent %d",
				moved(t, w, before, event.CounterListenOverflows), *r.Retransmits+1)
		}
	}
}

// TestCanaryStalled: SYNs are answered, but the handshake's last ACK and all that
// follows is dropped, as a full accept queue does. connect() succeeds.
func TestCanaryStalled(t *testing.T) {
	w := newWorld(t)
	listenIn(t, w, onlySYNs(0))
	r := startCanary(t, w, server4).record()
	if r.Outcome != event.CanaryStalled || *r.Retransmits != 0 || r.LatencyMs == nil ||
		*r.LatencyMs > 900 {
		t.Errorf("%+v", r)
	}
}

// TestCanaryReset: a handshake whose last ACK meets a full accept queue, with
// tcp_abort_on_overflow. A filter holds the ACK back until another one has
// filled the queue; where that took this machine longer than a canary waits, it is
// done again.
func TestCanaryReset(t *testing.T) {
	var r event.Canary
	for range 3 {
		if r = overflowAtACK(t); r.Outcome != event.CanaryStalled {
			break
		}
	}
	if r.Outcome != event.CanaryReset || r.LatencyMs == nil || *r.LatencyMs > 900 {
		t.Errorf("%+v", r)
	}
}

func overflowAtACK(t *testing.T) event.Canary {
	w := newWorld(t)
	must(t, w.Sysctl("net.ipv4.tcp_abort_on_overflow", "1"))
	const other = 40000
	fd := listenIn(t, w, onlySYNs(other))
	p := startCanary(t, w, server4)
	soon(t, func() bool { return closing(t, w) })
	must(t, w.Do(func() error {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(client) })
		if err := unix.Bind(client, &unix.SockaddrInet4{Port: other}); err != nil {
			return err
		}
		return unix.Connect(client,
			&unix.SockaddrInet4{Port: port, Addr: server4.Addr().As4()})
	}))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	return p.record()
}

// TestCanaryRefused: a closed port answers by RST.
func TestCanaryRefused(t *testing.T) {
	w := newWorld(t)
	if r := startCanary(t, w, server4).record(); r.Outcome != event.CanaryRefused ||
		r.Answer != event.CanaryAnswerRST {
		t.Errorf("%+v", r)
	}
	if r := startCanary(t, w,
		netip.AddrPortFrom(world.ServerAddr6,
			port)).record(); r.Outcome != event.CanaryRefused {
		t.Errorf("%+v", r)
	}
}
