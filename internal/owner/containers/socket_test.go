// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConnectToUser lets a user put something else in the place of his runtime's socket.
func TestConnectToUser(t *testing.T) {
	dir := t.TempDir()
	machines := filepath.Join(dir, "machines.sock")
	l, err := net.Listen("unix", machines)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own, others := filepath.Join(dir, "own.sock"), filepath.Join(dir, "others.sock")
	for path, uid := range map[string]int{own: 65534, others: 65533} {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	link, pipe, below := filepath.Join(dir, "link.sock"), filepath.Join(dir,
		"pipe.sock"), filepath.Join(dir, "below")
	if err := os.Symlink(machines, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, below); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{own: true, others: false, machines: false,
		link: false, pipe: false,
		filepath.Join(below, "own.sock"): false} {
		conn, err := Endpoint{Path: path, Runtime: podman,
			User: "65534"}.connect(t.Context())
		if err == nil {
			conn.Close()
		}
		if connected := err == nil; connected != want {
			t.Errorf("%s: connected: %v (%v), want %v", filepath.Base(path), connected,
				err, want)
		}
	}
	if conn, err := (Endpoint{Path: link}).connect(t.Context()); err != nil {
		t.Errorf("the machine's own may be a link: %v", err)
	} else {
		conn.Close()
	}
}
