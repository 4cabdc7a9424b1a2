// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/load"
	"golang.org/x/sys/unix"
)

// openHere loads and attaches a probe as this kernel lets it, until the test ends. must ends the test on an error.
func openHere(t *testing.T) (p *Probe, must func(error)) {
	t.Helper()
	must = func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	here, err := facts.Gather("")
	must(err)
	p, err = Open(here, facts.Auto, load.Config{Rate: 100, RingSize: 1 << 16},
		slog.New(slog.DiscardHandler))
	must(err)
	t.Cleanup(func() { p.Close() })
	return p, must
}

// TestReadListener reads the queue of a listener of this process as it fills, and finds it
// gone once it is closed.
func TestReadListener(t *testing.T) {
	p, must := openHere(t)
	const limit = 3
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(fd, limit))
	name, err := unix.Getsockname(fd)
	must(err)
	port := uint16(name.(*unix.SockaddrInet4).Port)
	held, _ := holdersHere(t, p)
	at := slices.IndexFunc(held, func(h holders.Holder) bool {
		return h.PID == uint32(os.Getpid()) && h.Listener.Port == port
	})
	if at < 0 {
		t.Fatalf("port %d is not among %d holders' listeners", port, len(held))
	}
	listener := held[at].Listener
	for n := range limit {
		conn, err := net.DialTCP("tcp4", nil,
			&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
		must(err)
		defer conn.Close()
		// The handshake's last packet may still be on its way through another CPU.
		deadline := time.Now().Add(10 * time.Second)
		for {
			now, ok, err := p.ReadListener(&listener)
			must(err)
			if !ok {
				t.Fatal("the listener is said to be gone")
			}
			if now.Accept.Len == uint32(n+1) && now.Accept.Limit == limit &&
				now.Port == port && now.Inode == listener.Inode {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d connections wait, and it is read as %+v", n+1, now)
			}
		}
	}
	must(unix.Close(fd))
	if now, ok, err := p.ReadListener(&listener); ok || err != nil {
		t.Errorf("closed, and read as %+v, error %v", now, err)
	}
}

// TestLookGroup: the listing of holders and a look at one both tell how many sockets the kernel has in a listener's group: a
// listener bound to a device has one of its own.
func TestLookGroup(t *testing.T) {
	p, must := openHere(t)
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	listen := func(device string) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		if device != "" {
			must(unix.BindToDevice(fd, device))
		}
		must(unix.Bind(fd, at))
		must(unix.Listen(fd, 8))
		name, err := unix.Getsockname(fd)
		must(err)
		at.Port = name.(*unix.SockaddrInet4).Port
	}
	listen("")
	listen("")
	listen("lo")
	holders, _ := holdersHere(t, p)
	seen := 0
	for _, h := range holders {
		if h.PID != uint32(os.Getpid()) || int(h.Listener.Port) != at.Port {
			continue
		}
		seen++
		want := uint32(2)
		if h.Listener.Device != 0 {
			want = 1
		}
		now, ok, err := p.ReadListener(&h.Listener)
		must(err)
		if !ok || h.Listener.Reuseport.Members != want || now.Reuseport.Members != want ||
			now.Device != h.Listener.Device {
			t.Errorf("device %d: %d members in the listing, %d and device %d on looking; want %d", h.Listener.Device, h.Listener.Reuseport.Members,
				now.Reuseport.Members, now.Device, want)
		}
	}
	if seen != 3 {
		t.Errorf("%d listeners, want 3", seen)
	}
}
