// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/lab"
)

// TestHostileCgroup: a cgroup's name is the choice of whoever may make one, as in
// a container; it may even end like the kernel's mark of a removed one.
func TestHostileCgroup(t *testing.T) {
	for _, name := range []string{hostileName, hostileName + " (deleted)", "v1:cpu:\t'" + strings.Repeat("\x9b\u202e", 60)} {
		path, dir := newCgroup(t, name)
		w := newWorld(t)
		server := startServer(t, w, hostile, lab.ListenConfig{Addr: anyAddr(port), Backlog: 3})
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
			if r.Cgroup == nil || sameRunes(r.Cgroup.Path) != sameRunes(want.Path) || r.Cgroup.ID != want.ID {
				t.Errorf("cgroup %+v, want %d %q", r.Cgroup, want.ID, want.Path)
			}
		}
		for _, format := range []string{"table", "wide"} {
			shown, err := exec.Command(program, "trace", "--read", file, "-o", format).CombinedOutput()
			must(t, err)
			if i := strings.IndexFunc(string(shown), acts); i >= 0 || !utf8.Valid(shown) {
				t.Errorf("%s, at %d: %q", format, i, shown)
			}
		}
	}
}

// hostileName is hostile as a file can be called: without a newline.
const hostileName = "ev\x1b[2J\r\"<b>\xff\xfe\u202egpj"

// acts tells whether a terminal or a reader's eye would obey a character.
func acts(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

// sameRunes makes one replacement character of several: how many stand for bytes that
// are no text is the writer's choice.
func sameRunes(s string) string {
	for strings.Contains(s, "\ufffd\ufffd") {
		s = strings.ReplaceAll(s, "\ufffd\ufffd", "\ufffd")
	}
	return s
}
