// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSleepersInAccept: a thread asleep in accept() is listed with its socket, and no more when it
// has left.
func TestSleepersInAccept(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		conn, _, err := unix.Accept(fd) // blocking: it keeps its thread
		if err == nil {
			err = unix.Close(conn)
		}
		done <- err
	}()
	pid := uint32(os.Getpid())
	var list []InAccept
	for deadline := time.Now().Add(10 * time.Second); len(list) == 0 &&
		time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		list = SleepersInAccept(pid)
	}
	if len(list) != 1 || list[0].Inode != stat.Ino {
		t.Fatalf("sleepers %+v, want one of socket %d", list, stat.Ino)
	}
	if !StillInAccept(pid, list[0]) {
		t.Error("does not sleep any more")
	}
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if StillInAccept(pid, list[0]) {
		t.Error("still sleeps")
	}
}

func TestAcceptedFile(t *testing.T) {
	accept4 := fmt.Sprint(unix.SYS_ACCEPT4)
	for text, want := range map[string]int{"running\n": -1, "-1 0x7ffe 0x1\n": -1, "": -1,
		accept4 + " 0x1f 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f01\n": 31,
		"0 0x3 0x0\n": -1, accept4: -1} {
		got, ok := acceptedFile(text)
		if ok != (want >= 0) || ok && int(got) != want {
			t.Errorf("%q: %d, %t; want %d", text, got, ok, want)
		}
	}
}
