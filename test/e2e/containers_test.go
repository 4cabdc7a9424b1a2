// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// TestContainers: a pod of a real containerd, two containers, one of which
// listens. Namespace, pod and container are in every record, and filters by them
// follow the pod, which starts later than they do. Then containerd hangs, and
// then is gone: IDs remain, nothing blocks, nothing is lost.
func TestContainers(t *testing.T) {
	const (
		otherPort = port + 1
		uid       = "4f2c1a90-0b7e-4c1d-9a52-6a1e0c7d9b13"
	)
	w := newWorld(t)
	c := startContainerd(t, w)
	t.Setenv("CONTAINER_RUNTIME_ENDPOINT", "unix://"+c.socket)

	all := start(t, "--netns", w.Path(), "--rate", "0")
	byPod := start(t, "--netns", w.Path(), "--rate", "0", "--pod", "synspy-*/api-7f9c")
	byContainer := start(t, "--netns", w.Path(), "--rate", "0", "--container", "app")
	none := start(t, "--netns", w.Path(), "--rate", "0", "--container", "sidecar")

	p := c.pod("synspy-e2e", "api-7f9c", uid)
	p.run("sidecar", nil)
	id := p.run("app", &server.Config{Comm: []byte("in-a-pod"),
		Listeners: []server.ListenConfig{{Addr: anyAddr(port), Backlog: 3}}})
	startServer(t, w, "outside", server.ListenConfig{Addr: anyAddr(otherPort), Backlog: 3})
	other := netip.AddrPortFrom(server4.Addr(), otherPort)
	c.await("the pod's listener", func(context.Context) error { return listening(w, port) })
	fill(t, w, server4, 3)
	fill(t, w, other, 3)

	late := start(t, "--netns", w.Path(), "--rate", "0", "--pod", "api-7f9c", "--container",
		id[:12])
	// On a busy machine containerd may take longer than a record waits for it: then
	// the first ones have IDs only, and a filter by name lets none through.
	first := 0
	c.await("names in the records", func(context.Context) error {
		loseSYNs(t, w, server4, 1)
		first++
		all.await("a record of the pod", func(records []record) bool {
			return len(records) > first
		})
		var without string
		for range 100 { // the streams are not equally fast
			without = ""
			for name, tr := range map[string]*tracer{"all": all, "--pod": byPod,
				"--container": byContainer, "--pod, later": late} {
				if !tr.has(func(r record) bool {
					return r.Pod != nil && r.Pod.Name != ""
				}) {
					without = name
				}
			}
			if without == "" {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return errors.New("none in " + without)
	})
	t.Logf("named from record %d on", first)
	loseSYNs(t, w, server4, 5)
	loseSYNs(t, w, other, 5)
	drops := func(n int) func([]record) bool {
		return func(records []record) bool {
			return n <= len(slices.DeleteFunc(slices.Clone(records),
				func(r record) bool { return r.Type != "drop" }))
		}
	}
	all.await("records of the pod", drops(first+10))

	c.signal(unix.SIGSTOP) // a runtime that takes connections and answers nothing
	unnamed := start(t, "--netns", w.Path(), "--rate", "0")
	loseSYNs(t, w, server4, 5)
	all.await("records while containerd hangs", drops(first+15))
	unnamed.await("records while containerd hangs", drops(5))
	c.end()
	loseSYNs(t, w, server4, 5)
	all.await("records without containerd", drops(first+20))
	unnamed.await("records without containerd", drops(10))

	named := &pod{Namespace: "synspy-e2e", Name: "api-7f9c", Container: "app", UID: uid}
	for _, run := range []struct {
		name           string
		of             *tracer
		inPod, outside int
		more           int // of the first that it may have had, too
		container      container
		pod            pod
	}{
		{"all", all, first + 15, 5, 0, container{id, "app", "containerd"}, *named},
		{"--pod", byPod, 15, 0, first, container{id, "app", "containerd"}, *named},
		{"--container", byContainer, 15, 0, first, container{id, "app", "containerd"},
			*named},
		{"--pod, later", late, 15, 0, first, container{id, "app", "containerd"}, *named},
		{"--container of the other one", none, 0, 0, 0, container{}, pod{}},
		{"without names", unnamed, 10, 0, 0, container{ID: id}, pod{UID: uid}},
	} {
		a := run.of.stop()
		inPod, outside := 0, 0
		for i, r := range a.of(w.NetNS()) {
			if r.Listener.Port != port {
				outside++
				continue
			}
			inPod++
			if len(r.Processes) != 1 || r.Processes[0].Comm != "in-a-pod" {
				t.Errorf("%s: record %d: processes %+v", run.name, i, r.Processes)
				continue
			}
			own := r.Processes[0]
			if i < first-1 && run.of == all {
				continue
			}
			for _, got := range []*container{r.Container, own.Container} {
				if got == nil || *got != run.container {
					t.Errorf("%s: record %d: container %+v, want %+v", run.name,
						i, got, run.container)
				}
			}
			for _, got := range []*pod{r.Pod, own.Pod} {
				if got == nil || *got != run.pod {
					t.Errorf("%s: record %d: pod %+v, want %+v", run.name, i,
						got, run.pod)
				}
			}
			if path := cgroupOf(t, own.PID); r.Cgroup == nil || r.Cgroup.Path != path ||
				!strings.HasSuffix(path, "/"+id) {
				t.Errorf("%s: record %d: cgroup %+v, /proc says %s, and the container is %s", run.name, i, r.Cgroup, path, id)
			}
		}
		if inPod < run.inPod || inPod > run.inPod+run.more || outside != run.outside {
			t.Errorf("%s: %d records of the pod and %d of others, want %d (and %d more at most) and %d",
				run.name, inPod, outside, run.inPod, run.more, run.outside)
		}
		dropped := first + 20
		if run.of == unnamed {
			dropped = 10
		}
		a.wantRow(w.NetNS(), "ListenDrops", dropped, dropped-inPod-outside)
		if run.of == byPod && !strings.Contains(a.stderr, "no listener matches yet") {
			t.Errorf("nothing matched, and it says on standard error:\n%s", a.stderr)
		}
	}
	if _, err := os.Stat(c.socket); err != nil {
		t.Error("there is no socket left: a dead runtime was not tried")
	}
}

// listening reports whether somebody listens on the port in the World.
func listening(w *world.World, port int) error {
	return w.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/tcp")
		if err == nil &&
			!strings.Contains(string(table),
				fmt.Sprintf(":%04X 00000000:0000 0A", port)) {
			err = fmt.Errorf("nobody listens on port %d", port)
		}
		return err
	})
}
