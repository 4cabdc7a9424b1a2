// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/owner/containers"
)

const hostileName = "\x1b[2J\"\n\u202e<b>\xff"

// answering starts a runtime with Docker's API that waits for leave before it
// calls every container by the name, in a pod of that name.
func answering(t *testing.T, name string) (at containers.Endpoint, leave chan struct{},
	stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "synspy-") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at = containers.Endpoint{Path: filepath.Join(dir, "s")}
	l, err := net.Listen("unix", at.Path)
	if err != nil {
		t.Fatal(err)
	}
	leave = make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		select {
		case <-leave:
		case <-r.Context().Done():
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"Id": containerID, "Name": "/" + name,
			"Config": map[string]any{
				"Labels": map[string]string{"io.kubernetes.pod.name": name,
					"io.kubernetes.pod.namespace":  "prod",
					"io.kubernetes.container.name": name}}})
	})}
	go func() { _ = server.Serve(l) }()
	stop = func() { server.Close() }
	t.Cleanup(stop)
	return at, leave, stop
}

// TestNamedByRuntime: a container is called by its ID until its runtime has
// answered, and what it is called then stays, whatever becomes of the runtime.
func TestNamedByRuntime(t *testing.T) {
	ln, inode := listenTCP(t)
	pid, end := holderProcess(t, "server", ln)
	at, leave, stop := answering(t, hostileName)
	names := containers.New([]containers.Endpoint{at}, nil)
	t.Cleanup(func() { names.Close() })
	tab := New("/proc", nil)
	tab.AskRuntimes(names)
	path := testCgroup(t, tab, cgroup.V2, pid, "docker-"+containerID+".scope")
	t.Cleanup(end)

	holders, _, err := ScanProc("/proc", func(i uint64) bool { return i == inode })
	if err != nil {
		t.Fatal(err)
	}
	for i := range holders {
		holders[i].Socket = 1
	}
	tab.Replace(holders)
	byName, byID := Filter{Container: "*<b>*"}, Filter{Container: containerID[:12]}
	if matched, pending := tab.Match(1, byName); matched || !pending {
		t.Errorf("before the answer: matched %t, pending %t", matched, pending)
	}
	if matched, _ := tab.Match(1, byID); !matched {
		t.Error("its ID waits for a name")
	}
	if _, pending := tab.Match(1, Filter{Cgroup: "/nosuch"}); pending {
		t.Error("a cgroup waits for a name")
	}
	tab.AwaitNames(time.Millisecond, 1, 2)
	before := find(tab.Processes(1, 0), pid)
	unnamed := &event.Container{ID: containerID, Runtime: "docker"}
	if diff := cmp.Diff(unnamed, before.Container); diff != "" || before.Pod != nil {
		t.Errorf("before the answer: pod %v, %s", before.Pod, diff)
	}

	close(leave)
	for deadline := time.Now().Add(20 * time.Second); tab.Renamed() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no answer")
		}
	}
	stop()
	// As JSON has it: what the API cannot carry is replaced.
	const name = "\x1b[2J\"\n\u202e<b>\ufffd"
	want := &event.Process{PID: pid, Comm: "server", Role: event.RoleHolder,
		Cgroup: before.Cgroup, Start: before.Start,
		Container: &event.Container{ID: containerID, Name: name, Runtime: "docker"},
		Pod:       &event.Pod{Namespace: "prod", Name: name, Container: name}}
	for _, when := range []string{"named", "read again", "dead"} {
		if diff := cmp.Diff(want, find(tab.Processes(1, 0), pid)); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
		for filter, want := range map[Filter]bool{
			byName: true, byID: true, {Pod: "prod/*"}: true, {Pod: "*<b>*"}: true,
			{Container: name, Pod: "prod/" + name}: true,
			{Container: containerID[:7]}:           false, {Container: "web"}: false,
			{Pod: "pro/*"}: false, {Pod: "prod/x"}: false,
			{Cgroup: path, Container: "x"}: false, {PID: pid + 1, Pod: "prod/*"}: false,
		} {
			if matched, pending := tab.Match(1, filter); matched != want || pending {
				t.Errorf("%s: %+v: matched %t, pending %t", when, filter, matched,
					pending)
			}
		}
		if when == "read again" {
			end()
		}
		tab.Replace(holders)
	}
	if diff := cmp.Diff(unnamed, before.Container); diff != "" {
		t.Errorf("a record was written to after it was given away: %s", diff)
	}
}

func TestValidate(t *testing.T) {
	for f, ok := range map[Filter]bool{
		{Pod: "api"}: true, {Pod: "prod/api-*"}: true, {Container: "a*"}: true,
		{Pod: "/api"}: false, {Pod: "prod/"}: false, {Pod: "a/b/c"}: false,
		{Pod: "[a"}: false, {Container: "[a"}: false,
	} {
		if err := f.Validate(); (err == nil) != ok {
			t.Errorf("%+v: %v", f, err)
		}
	}
}
