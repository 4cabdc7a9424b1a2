// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// ownedBy is a drop whose owner calls himself s wherever he can.
func ownedBy(s string) *event.Drop {
	d := scene()[0]
	cg := &event.Cgroup{ID: 1, Path: "/" + s}
	c := &event.Container{ID: s, Name: s, Runtime: s}
	p := &event.Pod{Namespace: s, Name: s, Container: s, UID: s}
	d.Processes = []event.Process{{PID: 1, Comm: s, Role: event.RoleListener, Cgroup: cg,
		Container: c, Pod: p}}
	d.Cgroup, d.Container, d.Pod = cg, c, p
	return d
}

// TestHostileOwner: what a process, a cgroup, a container or a pod is called
// damages no form of output, and stays what it is where it is text.
func TestHostileOwner(t *testing.T) {
	for _, s := range hostile {
		named, unpodded, bare := ownedBy(s), ownedBy(s), ownedBy(s)
		unpodded.Pod = nil
		bare.Pod, bare.Container = nil, nil
		for _, d := range []*event.Drop{named, unpodded, bare} {
			for _, format := range []Format{FormatTable, FormatWide} {
				for _, width := range []int{0, 80, 200} {
					var buf bytes.Buffer
					stream := NewStream(&buf,
						Options{Format: format, Width: width,
							Time: ClockUTC})
					for _, err := range []error{stream.Drop(d),
						stream.Flush()} {
						if err != nil {
							t.Fatal(err)
						}
					}
					safe(t, buf.Bytes())
					if lines := strings.Count(buf.String(), "\n"); lines != 2 { // the header's and its own
						t.Errorf("%q makes %d lines:\n%s", s, lines,
							buf.String())
					}
				}
			}
			s := &pcapngStream{opts: Options{Time: ClockUTC}}
			comment := s.appendComment(nil, d)
			safe(t, comment)
			if bytes.ContainsRune(comment, '\n') {
				t.Errorf("more than a line: %q", comment)
			}
		}
		var buf bytes.Buffer
		stream := NewStream(&buf, Options{Format: FormatJSON})
		for _, err := range []error{stream.Drop(named), stream.Flush()} {
			if err != nil {
				t.Fatal(err)
			}
		}
		checkJSON(t, buf.Bytes())
		back, err := event.Decode(bytes.TrimSpace(buf.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		d, clean := back.(*event.Drop), strings.ToValidUTF8(s, "\ufffd")
		if s == "" {
			continue // absent
		}
		same := func(got string) bool { // each invalid byte may be replaced by itself
			return strings.ReplaceAll(got, "\ufffd", "") == strings.ReplaceAll(clean,
				"\ufffd", "")
		}
		if !same(d.Pod.Namespace) || !same(d.Pod.Name) || !same(d.Container.Name) ||
			!same(d.Processes[0].Comm) ||
			!same(strings.TrimPrefix(d.Cgroup.Path, "/")) {
			t.Errorf("%q came back as %+v %+v %+v", s, d.Pod, d.Container, d.Cgroup)
		}
	}
}

// TestHostileContainerOfCounters is TestHostileOwner for the counters of a namespace.
func TestHostileContainerOfCounters(t *testing.T) {
	for _, s := range hostile {
		d := ownedBy(s)
		records := counted(time.Second, 1)[:1]
		records[0].Cgroup, records[0].Container, records[0].Pod, records[0].Comm = d.Cgroup,
			d.Container, d.Pod, s
		for _, pod := range []*event.Pod{d.Pod, nil} {
			records[0].Pod = pod
			for _, format := range []Format{FormatTable, FormatWide, FormatJSON} {
				var buf bytes.Buffer
				opts := Options{Format: format}
				if err := CountersTable(&buf, records, opts); err != nil {
					t.Fatal(err)
				}
				if err := NewCountersWatch(&buf,
					opts).Interval(records); err != nil {
					t.Fatal(err)
				}
				if format == FormatJSON {
					checkJSON(t, buf.Bytes())
				} else {
					safe(t, buf.Bytes())
				}
			}
		}
	}
}
