// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// syn is a SYN as it arrives, from the IP header on. Its checksums are zero.
func syn(from, to netip.AddrPort) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[0:], from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], 4711)
	tcp[12], tcp[13] = 5<<4, 2 // SYN
	var ip []byte
	if from.Addr().Is4() {
		ip = make([]byte, 12, 20)
		ip[0], ip[8], ip[9] = 4<<4|5, 64, 6
		binary.BigEndian.PutUint16(ip[2:], 40)
	} else {
		ip = make([]byte, 8, 40)
		ip[0], ip[6], ip[7] = 6<<4, 6, 64
		binary.BigEndian.PutUint16(ip[4:], 20)
	}
	ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	return append(ip, tcp...)
}

// packets is the scene, with bytes for all but those that are of no packet.
func packets() []*event.Drop {
	drops := scene()
	for _, d := range drops {
		if d.Client != nil {
			d.Packet = syn(netip.AddrPortFrom(d.Client.Addr, d.Client.Port),
				netip.AddrPortFrom(d.Server.Addr, d.Server.Port))
		}
	}
	return drops
}

func writePcapng(t *testing.T, drops []*event.Drop) (file, notes bytes.Buffer) {
	t.Helper()
	s := NewStream(&file, Options{Format: FormatPcapng, Notes: &notes})
	errs := []error{s.Ready(event.Ready{Kernel: "6.18.5\x1b"})}
	for _, d := range drops {
		errs = append(errs, s.Drop(d))
	}
	errs = append(errs, s.Suppressed(event.Suppressed{Header: event.Head("lost"), Count: 3}),
		s.Summary(summary()), s.Flush())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return file, notes
}

// tshark reads a capture; a row for each packet.
func tshark(t *testing.T, file []byte, fields ...string) [][]string {
	t.Helper()
	// No skip: without it nothing would say that the file can be read.
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Fatalf("%v: make deps installs it", err)
	}
	args := []string{"-n", "-r", "-", "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(cmd.Environ(), "TZ=UTC", "HOME="+t.TempDir())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(file), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	var rows [][]string
	for line := range strings.Lines(stdout.String()) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
	}
	return rows
}

// TestPcapngForTshark: what is written is what the reference reader reads.
func TestPcapngForTshark(t *testing.T) {
	drops := packets()
	drops[1].Packet = drops[1].Packet[:28] // cut short
	file, notes := writePcapng(t, drops)
	rows := tshark(t, file.Bytes(), "frame.time_epoch", "frame.interface_name",
		"frame.encap_type", "frame.len",
		"frame.cap_len", "ip.src", "ipv6.src", "tcp.srcport", "tcp.dstport", "frame.comment")
	var got []string
	for _, r := range rows {
		got = append(got, strings.Join(r, "|"))
	}
	want := []string{
		"1795323301.123456789|synspy|7|40|40|10.0.0.7||51234|443|accept_queue_full syn dropped, try 2;" +
			" listener 0.0.0.0:443 (accept 129/128) netns 4026531840; process 812 nginx +1; in prod/api-7f9c",
		"1795323301.127456789|synspy|7|40|28|192.168.100.200||51235|443|accept_queue_full ack reset, try 11;" +
			" listener 0.0.0.0:443 (accept 129/128) netns 4026531840; process 812 nginx +1; in nginx-proxy",
		"1795323301.138456789|synspy|7|40|40|10.0.0.7||51234|443|defer_accept ack ignored, try 2;" +
			" listener 0.0.0.0:443 (accept 129/128) netns 4026531840; process 812 nginx +1; in prod/api-7f9c",
		"1795323301.143456789|synspy|7|60|60||2001:db8:85a3:1234:5678:8a2e:370:7334|51236|443|accept_queue_full syn dropped, try 2;" +
			" listener 0.0.0.0:443 (accept 129/128) netns 4026531840; process 812 nginx +1; in 0123456789ab",
		"1795323302.123456789|synspy|7|40|40|10.0.0.7||51234|443|syn_queue_full syn dropped;" +
			" listener 0.0.0.0:443 (syn 3/128) netns 4026531840; process 812 nginx; in nginx.service",
		"1795323302.124456789|synspy|7|40|40|10.0.0.7||51234|443|no_listener ingress reset, try 2",
		"1795323302.126456789|synspy|7|40|40|10.0.0.7||51234|443|SYN cookie sent syn, try 2;" +
			" listener 0.0.0.0:443 (syn 3/128) netns 4026531840; process 812 nginx +1; in prod/api-7f9c",
		`1795323302.623456789|synspy|7|40|40|10.0.0.7||51234|443|syn_backlog_reserve syn dropped, try 2;` +
			` listener 0.0.0.0:443 (syn 3/128) netns 4026531840; process 812 \x1b[2J\u202eevil\xff +1; in prod/pod\x0aforged`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if text := notes.String(); !strings.HasPrefix(text,
		"synspy: 8 packets written\nsynspy: 1 record had no packet bytes\n") ||
		!strings.Contains(text, "1,235 of 4,310 SYNs dropped") ||
		!strings.Contains(text, "ledger balanced") {
		t.Errorf("notes:\n%s", text)
	}
}

// TestPcapngWithoutPackets is a file that can be read all the same.
func TestPcapngWithoutPackets(t *testing.T) {
	drops := scene()
	file, notes := writePcapng(t, drops)
	if rows := tshark(t, file.Bytes(), "frame.len"); len(rows) != 0 {
		t.Errorf("packets that nobody saw: %q", rows)
	}
	if !strings.Contains(notes.String(), "9 records had no packet bytes") {
		t.Errorf("notes:\n%s", notes.String())
	}
}

// TestPcapngComment is bounded, and text, whatever the names are.
func TestPcapngComment(t *testing.T) {
	for seed := range uint64(500) {
		d := random[event.Drop](seed)
		d.Processes = append([]event.Process{{Comm: strings.Repeat("\x1b\xff\u202e",
			2000)}}, d.Processes...)
		b := (&pcapngStream{}).appendComment(nil, d)
		safe(t, b)
		if bytes.ContainsRune(b, '\n') || len(b) > 4*mostComment {
			t.Fatalf("seed %d: %d bytes: %q", seed, len(b), b)
		}
	}
}

func TestPacketLength(t *testing.T) {
	v4 := syn(netip.MustParseAddrPort("10.0.0.7:1"), netip.MustParseAddrPort("10.0.0.1:2"))
	v6 := syn(netip.MustParseAddrPort("[2001:db8::7]:1"),
		netip.MustParseAddrPort("[2001:db8::1]:2"))
	for _, c := range []struct {
		packet []byte
		want   int
	}{{v4, 40}, {v4[:20], 40}, {v4[:3], 3}, {v6, 60}, {v6[:40], 60}, {v6[:5], 5},
		{[]byte{0xff}, 1},
		{append(v4, make([]byte, 6)...), 46}} {
		if got := packetLength(c.packet); got != c.want {
			t.Errorf("%x: %d, want %d", c.packet, got, c.want)
		}
	}
}

func TestPcapngErrors(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	s := NewStream(w, Options{Format: FormatPcapng})
	if err := s.Ready(event.Ready{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("ready: %v", err)
	}
	if err := s.Summary(event.Summary{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("summary: %v", err)
	}
}
