// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/kernel/kerneltest"
	"github.com/synspy/synspy/internal/lab/server"
)

// TestHostileCgroup: a cgroup's name is the choice of whoever may make one, as in
// a container; it may even end like the kernel's mark of a removed one.
func TestHostileCgroup(t *testing.T) {
	for _, name := range []string{hostileName, hostileName + " (deleted)", "v1:cpu:\t'" +
		strings.Repeat("\x9b\u202e", 60)} {
		path, dir := newCgroup(t, name)
		w := newWorld(t)
		server := startServer(t, w, hostile,
			server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
		moveTo(t, dir, server.PID)
		fill(t, w, server4, 3)
		file := filepath.Join(t.TempDir(), "records")
		tr := start(t, "--netns", w.Path(), "--write", file)
		loseSYNs(t, w, server4, 2)
		a := tr.stop() // checks JSON and UTF-8
		want := cgroup{ID: inode(t, dir), Path: strings.ToValidUTF8(path, "\ufffd")}
		drops := a.of(w.NetNS())
		if len(drops) != 2 {
			t.Errorf("%q: %d records, want 2", name, len(drops))
		}
		for _, r := range drops {
			if r.Cgroup == nil || sameRunes(r.Cgroup.Path) != sameRunes(want.Path) ||
				r.Cgroup.ID != want.ID {
				t.Errorf("cgroup %+v, want %d %q", r.Cgroup, want.ID, want.Path)
			}
		}
		for _, format := range []string{"table", "wide"} {
			shown, err := exec.Command(program, "trace", "--read", file, "-o",
				format).CombinedOutput()
			must(t, err)
			if i := strings.IndexFunc(string(shown), acts); i >= 0 ||
				!utf8.Valid(shown) {
				t.Errorf("%s, at %d: %q", format, i, shown)
			}
		}
	}
}

// TestHostileDevice: a device's name is the choice of whoever is root in its namespace, as in many
// a container.
func TestHostileDevice(t *testing.T) {
	const name = "\x1b[2J\u202e<b>$(x)" // 15 bytes: as long as one may be
	w := newWorld(t)
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "pass_all", Type: ebpf.XDP,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	must(t, err)
	defer pass.Close()
	must(t, w.Do(func() error {
		if err := kerneltest.AddLink("veth", name, "end", 0); err != nil {
			return err
		}
		index, err := kerneltest.DeviceIndex(name)
		if err != nil {
			return err
		}
		attached, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: index,
			Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	}))
	file := filepath.Join(t.TempDir(), "report.html")
	for _, form := range []string{"text", "json"} {
		var stderr bytes.Buffer
		cmd := exec.Command(program, "diagnose", "--netns", w.Path(), "--duration", "1s",
			"-o", form, "--report", file)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, &stderr)
		}
		if !bytes.Contains(out, []byte("pass_all")) ||
			!bytes.Contains(out, []byte("no_syn_arrived")) {
			t.Errorf("the program is not named: %s", out)
		}
		if bytes.Contains(out, []byte("dev "+name[:1])) ||
			bytes.Contains(out, []byte("dev \\")) {
			t.Errorf("a command has the device's name: %s", out)
		}
		if i := strings.IndexFunc(string(out), acts); form == "text" && i >= 0 ||
			!utf8.Valid(out) {
			t.Errorf("%s, at %d: %q", form, i, out)
		}
	}
	html, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Contains(html, []byte("pass_all")) || bytes.Contains(html, []byte("<b>$(x)")) ||
		bytes.ContainsAny(html, "\x1b\u202e") {
		t.Errorf("the report does not name the program, or does what the device's name says: %s", html)
	}
}

// hostileName is hostile as a file can be called: without a newline.
const hostileName = "ev\x1b[2J\r\"<b>\xff\xfe\u202egpj"

// acts reports whether a terminal or a reader's eye would obey a character.
func acts(r rune) bool {
	return r != '\n' &&
		(unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

// sameRunes makes one replacement character of several: how many stand for bytes that
// are no text is the writer's choice.
func sameRunes(s string) string {
	for strings.Contains(s, "\ufffd\ufffd") {
		s = strings.ReplaceAll(s, "\ufffd\ufffd", "\ufffd")
	}
	return s
}
