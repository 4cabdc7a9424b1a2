// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/render"
)

// TestShownContainerIsAccepted: what stands in the column CONTAINER may be given to --container as
// it is.
func TestShownContainerIsAccepted(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	long := strings.Repeat("a-long-name-", 12)
	for name, p := range map[string]event.Process{
		"pod": {Pod: &event.Pod{Namespace: "prod", Name: "api-7f9c"},
			Container: &event.Container{ID: id, Name: "app"}},
		"container of a pod": {Pod: &event.Pod{Namespace: "prod", Name: "api-7f9c",
			Container: "app"}, Container: &event.Container{ID: id, Name: "app"}},
		"pod without a namespace": {Pod: &event.Pod{Name: "api-7f9c"}},
		"long pod": {Pod: &event.Pod{Namespace: "prod", Name: long,
			Container: "app"}},
		"container":                {Container: &event.Container{ID: id, Name: "web"}},
		"container without a name": {Container: &event.Container{ID: id}},
		"cgroup": {Cgroup: &event.Cgroup{
			Path: "/system.slice/nginx.service"}},
		"long cgroup": {Cgroup: &event.Cgroup{Path: "/" + long}},
		"brackets":    {Container: &event.Container{ID: id, Name: "web[1]"}},
	} {
		p.PID, p.Comm = 7, "x"
		d := event.Drop{Header: event.Head("drop"), Processes: []event.Process{p},
			Cgroup: p.Cgroup, Container: p.Container, Pod: p.Pod}
		listing := event.Listing{Processes: d.Processes, Cgroup: p.Cgroup,
			Container: p.Container, Pod: p.Pod}
		for _, options := range []render.Options{{}, {Width: 120}, {Width: 140},
			{Plain: true}, {Format: render.FormatWide}, {Format: render.FormatWide,
				Plain: true}} {
			var stream, listings bytes.Buffer
			s := render.NewStream(&stream, options)
			if err := s.Drop(&d); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			l := render.NewListingWriter(&listings, false, options)
			if err := errors.Join(l.Write(&listing), l.Close()); err != nil {
				t.Fatal(err)
			}
			for of, text := range map[string]string{"the stream": stream.String(),
				"the listeners": listings.String()} {
				header, row, _ := strings.Cut(text, "\n")
				at := strings.Index(header, "CONTAINER")
				if at < 0 {
					t.Fatalf("no column CONTAINER in %s", header)
				}
				shown, _, _ := strings.Cut(string([]rune(row)[at:]), " ")
				shown = strings.TrimSpace(shown)
				other := event.Process{PID: 8,
					Pod: &event.Pod{Namespace: "test",
						Name: "db"}, Container: &event.Container{
						ID: strings.Repeat("f", 64), Name: "db"},
					Cgroup: &event.Cgroup{Path: "/db.service"}}
				filter := owner.Filter{Container: shown}
				if err := filter.Validate(); err != nil || shown == "" ||
					!filter.Matches(&p) || filter.Matches(&other) {
					t.Errorf("%s in %s: %q is not what it matches (%v)\n%s",
						name, of, shown, err, text)
				}
			}
		}
	}
}
