// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestListeningFiles(t *testing.T) {
	dir := t.TempDir()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	const tail = " 00:00000000 00000000  1000        0 1608 1 0000000000000000 100 0 0 10 0\n"
	for name, text := range map[string]string{
		"tcp": head + "   0: 0100007F:07E8 00000000:0000 0A 00000000:00000003" + tail +
			"   1: 0100007F:07E9 0100007F:1234 01 00000000:00000000" + tail +
			"garbage\n",
		"tcp6": head +
			"   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000" + tail +
			"   1: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 00000000:00000000" + tail,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := ListeningFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range list {
		got = append(got, netip.AddrPortFrom(l.Addr, l.Port).String())
	}
	if want := []string{"127.0.0.1:2024", "[::1]:80",
		"[::ffff:127.0.0.1]:81"}; !slices.Equal(got, want) {
		t.Fatalf("listeners %v, want %v", got, want)
	}
	if l := list[0]; l.Len != 3 || l.Inode != 1608 || l.Limit != nil || l.Drops != nil {
		t.Errorf("%+v", l)
	}
}

// TestListeningSockets finds a listener of this process, and the same without inet_diag.
func TestListeningSockets(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	want := ln.Addr().(*net.TCPAddr).AddrPort()
	find := func(list []Listening) *Listening {
		for i := range list {
			if netip.AddrPortFrom(list[i].Addr, list[i].Port) == want {
				return &list[i]
			}
		}
		t.Fatalf("%v is not among %d listeners", want, len(list))
		return nil
	}
	var list []Listening
	settings, err := ListeningSockets("", 0, func(l *Listening) { list = append(list, *l) })
	if err != nil {
		t.Fatal(err)
	}
	diag := find(list)
	if settings.Somaxconn == nil || diag.Limit == nil || *diag.Limit != *settings.Somaxconn { // Go asks for that
		t.Errorf("%+v with %+v", diag, settings)
	}
	if list, err = ListeningFiles("/proc/self/net"); err != nil {
		t.Fatal(err)
	}
	if file := find(list); file.Inode != diag.Inode || file.Inode == 0 {
		t.Errorf("inode %d by inet_diag, %d by /proc", diag.Inode, file.Inode)
	}
}

func TestParseDiagShort(t *testing.T) {
	for n := range 80 {
		b := make([]byte, n)
		if n > 1 {
			b[1] = tcpListen
		}
		if _, ok := parseDiag(b); ok != (n >= diagMessageSize) {
			t.Errorf("%d bytes: %v", n, ok)
		}
	}
}
