// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

// hostilePlaces are the names in a record that someone else chooses.
var hostilePlaces = map[string]func(d *event.Drop, name string){
	"comm":        func(d *event.Drop, name string) { d.Processes[0].Comm = name },
	"second comm": func(d *event.Drop, name string) { d.Processes[1].Comm = name },
	"cgroup": func(d *event.Drop, name string) {
		d.Pod, d.Container, d.Cgroup = nil, nil, &event.Cgroup{Path: "/" + name}
	},
	"container id": func(d *event.Drop, name string) {
		d.Pod, d.Container = nil, &event.Container{ID: name, Runtime: name}
	},
	"container": func(d *event.Drop, name string) {
		d.Pod, d.Container = nil, &event.Container{ID: "0123", Name: name}
	},
	"pod": func(d *event.Drop, name string) {
		d.Pod = &event.Pod{Namespace: "prod", Name: name}
	},
	"pod namespace": func(d *event.Drop, name string) {
		d.Pod = &event.Pod{Namespace: name, Name: "api"}
	},
	"pod container": func(d *event.Drop, name string) {
		d.Pod = &event.Pod{Namespace: "prod", Name: "api", Container: name}
	},
	"everything": func(d *event.Drop, name string) {
		d.Pod = &event.Pod{Namespace: name, Name: name, Container: name}
		d.Container = &event.Container{ID: name, Name: name, Runtime: name}
		d.Cgroup = &event.Cgroup{Path: name}
		for i := range d.Processes {
			p := &d.Processes[i]
			p.Comm, p.Cgroup, p.Container, p.Pod = name, d.Cgroup, d.Container, d.Pod
		}
	},
}

// hostileNames are the hostile strings, and long ones of each kind.
func hostileNames() []string {
	names := append([]string{}, hostile...)
	for _, s := range hostile {
		if s != "" {
			names = append(names, strings.Repeat(s, 4096/len(s)+1))
		}
	}
	return names
}

// TestHostileNames: whatever a name is, a record is one line, of text that acts on
// nobody, and no longer than the terminal is wide.
func TestHostileNames(t *testing.T) {
	for place, put := range hostilePlaces {
		for _, name := range hostileNames() {
			what := fmt.Sprintf("%s %.40q", place, name)
			record := func() *event.Drop {
				d := typical()
				put(d, name)
				d.Packet = packets()[0].Packet
				return d
			}
			for _, width := range []int{80, 120} {
				for _, line := range written(t,
					Options{Format: FormatTable,
						Width: width}, record(), 2, what) {
					if n := utf8.RuneCountInString(line); n > width {
						t.Errorf("%s: a line of %d characters on a terminal of %d: %.200q", what, n, width, line)
					}
				}
			}
			written(t, Options{Format: FormatWide}, record(), 2, what)
			line := written(t, Options{Format: FormatJSON}, record(), 1, what)[0]
			var got event.Drop
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Errorf("%s: %v in %.200q", what, err, line)
			} else if want := strings.ToValidUTF8(name, ""); place == "comm" &&
				strings.ReplaceAll(got.Processes[0].Comm, "\ufffd", "") !=
					strings.ReplaceAll(want, "\ufffd", "") {
				t.Errorf("%s: it is %.200q in JSON", what, got.Processes[0].Comm)
			}
			comment := (&pcapngStream{}).appendComment(nil, record())
			safe(t, comment)
			if bytes.ContainsRune(comment, '\n') ||
				utf8.RuneCount(comment) > mostComment {
				t.Errorf("%s: a comment of %d characters: %.200q", what,
					utf8.RuneCount(comment), comment)
			}
		}
	}
}

// written is the lines of a record's stream, header included.
func written(t *testing.T, opts Options, d *event.Drop, want int, what string) []string {
	t.Helper()
	var buf bytes.Buffer
	s := NewStream(&buf, opts)
	for _, err := range []error{s.Drop(d), s.Flush()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	safe(t, buf.Bytes())
	lines := strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n")
	if len(lines) != want {
		t.Fatalf("%s: %d lines, want %d: %.300q", what, len(lines), want, buf.String())
	}
	return lines
}
