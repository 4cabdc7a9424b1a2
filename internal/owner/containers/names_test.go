// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
)

const hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var app = Key{ID: hexID, Runtime: containerd}

// patience is how long anything that must happen may take.
const patience = 20 * time.Second

// fake is a runtime.
type fake struct {
	calls atomic.Int64
	hang  chan struct{} // nil: it answers at once

	mu     sync.Mutex
	answer *Answer
	err    error
}

func (f *fake) set(a *Answer, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer, f.err = a, err
}

func (f *fake) ask(ctx context.Context, _ string) (*Answer, error) {
	f.calls.Add(1)
	if f.hang != nil {
		select {
		case <-f.hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer == nil {
		return nil, f.err
	}
	a := *f.answer
	return &a, f.err
}

func (f *fake) close() error { return nil }

// clock is a time that tests move.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time              { return time.Unix(1000, c.ns.Load()) }
func (c *clock) advance(after time.Duration) { c.ns.Add(int64(after)) }

// with makes names whose one runtime is the fake.
func with(t *testing.T, f *fake) (*Names, *clock) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n, c := New([]Endpoint{{Path: socket}}, nil), &clock{}
	n.dial = func(Endpoint) (runtime, error) { return f, nil }
	n.now, n.callTime = c.now, time.Hour
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, c
}

// settled looks a container up and waits until nobody is being asked about it.
func settled(t *testing.T, n *Names, k Key) *Answer {
	t.Helper()
	n.Lookup(k)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n.mu.Lock()
		busy := n.entries[k].queued
		n.mu.Unlock()
		if !busy {
			return n.Lookup(k)
		}
		if time.Now().After(deadline) {
			t.Fatal("still asking")
		}
	}
}

func TestNames(t *testing.T) {
	f := &fake{err: errUnknown}
	n, clock := with(t, f)
	if a := settled(t, n, app); a != nil || n.Changes() != 0 || f.calls.Load() != 1 {
		t.Fatalf("unknown: %+v, %d changes, %d calls", a, n.Changes(), f.calls.Load())
	}
	if n.Pending(app) || n.Waiting() {
		t.Error("it was asked, and is still waited for")
	}
	f.set(&Answer{Name: "app"}, nil)
	if a := settled(t, n, app); a != nil || f.calls.Load() != 1 {
		t.Errorf("asked again at once: %+v", a)
	}
	clock.advance(keepUnknown)
	if a := settled(t, n, app); a == nil || a.Name != "app" || n.Changes() != 1 {
		t.Fatalf("after a while: %+v, %d changes", a, n.Changes())
	}
	clock.advance(keepKnown)
	settled(t, n, app)
	if f.calls.Load() != 3 || n.Changes() != 1 {
		t.Errorf("the same again: %d calls, %d changes", f.calls.Load(), n.Changes())
	}
	f.set(&Answer{Name: "renamed"}, nil)
	clock.advance(keepKnown)
	if a := settled(t, n, app); a.Name != "renamed" || n.Changes() != 2 {
		t.Errorf("renamed: %+v, %d changes", a, n.Changes())
	}
	f.set(nil, errors.New("it stopped"))
	clock.advance(keepKnown)
	if a := settled(t, n, app); a == nil || a.Name != "renamed" || n.Changes() != 2 {
		t.Errorf("stopped: %+v, %d changes", a, n.Changes())
	}
	// One that fails is left alone for a while, also about others.
	calls := f.calls.Load()
	if a := settled(t, n, Key{ID: "other"}); a != nil || f.calls.Load() != calls {
		t.Errorf("asked although it fails: %+v", a)
	}
	f.set(&Answer{Name: strings.Repeat("x", maxName+1), Pod: &event.Pod{Name: "p"}}, nil)
	clock.advance(keepKnown)
	if diff := cmp.Diff(&Answer{Pod: &event.Pod{Name: "p"}},
		settled(t, n, Key{ID: "long"})); diff != "" {
		t.Errorf("too long a name: %s", diff)
	}
}

// TestHangingRuntime: who waits does so once, and everything is bounded.
func TestHangingRuntime(t *testing.T) {
	f := &fake{hang: make(chan struct{}), answer: &Answer{Name: "late"}}
	n, _ := with(t, f)
	n.Lookup(app)
	if !n.Pending(app) || !n.Waiting() {
		t.Fatal("nobody is asked")
	}
	n.Await([]Key{app, {ID: "never looked up"}}, time.Millisecond)
	began := time.Now()
	n.Await([]Key{app}, time.Hour)
	if took := time.Since(began); took > patience {
		t.Errorf("waited again for %v", took)
	}
	for i := range 2 * maxEntries {
		n.Lookup(Key{ID: fmt.Sprint(i)})
	}
	n.mu.Lock()
	entries, queue, working := len(n.entries), len(n.queue), n.working
	n.mu.Unlock()
	if entries > maxEntries || queue > maxEntries || working > maxCalls {
		t.Errorf("%d entries, %d in the queue, %d calls", entries, queue, working)
	}
	if calls := f.calls.Load(); calls > maxCalls {
		t.Errorf("%d calls at once", calls)
	}
	close(f.hang)
	for deadline := time.Now().Add(patience); n.Lookup(app) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no answer")
		}
	}
	if a := n.Lookup(app); a.Name != "late" || n.isSlow() {
		t.Errorf("%+v, slow %t", a, n.isSlow())
	}
}

func TestAwait(t *testing.T) {
	f := &fake{hang: make(chan struct{}), answer: &Answer{Name: "app"}}
	n, _ := with(t, f)
	n.Lookup(app)
	go func() { f.hang <- struct{}{} }()
	n.Await([]Key{app}, patience)
	if a := n.Lookup(app); a == nil {
		t.Error("did not wait")
	}
}

func TestCloseWhileAsking(t *testing.T) {
	f := &fake{hang: make(chan struct{})}
	n, _ := with(t, f)
	for i := range 100 {
		n.Lookup(Key{ID: fmt.Sprint(i)})
	}
	done := make(chan struct{})
	go func() {
		n.Await([]Key{{ID: "99"}}, time.Hour)
		close(done)
	}()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("somebody still waits")
	}
	if n.Lookup(app) != nil {
		t.Error("named after its end")
	}
}

// TestWhoIsAsked: only who may know it, and a user's runtimes for what is his.
func TestWhoIsAsked(t *testing.T) {
	var asked []string
	n := New(nil, nil)
	for _, e := range usual {
		if e.mayKnow(app) {
			asked = append(asked, e.Path)
		}
	}
	if len(asked) != 4 || !strings.HasSuffix(asked[0], "/containerd.sock") {
		t.Errorf("asked %q", asked)
	}
	for _, e := range ofUser("1000") {
		if !strings.HasPrefix(e.Path, "/run/user/1000/") || e.CRI || e.mayKnow(app) {
			t.Errorf("%+v", e)
		}
	}
	n.endpoints = []Endpoint{{Path: "/", Runtime: containerd}}
	n.dial = func(e Endpoint) (runtime, error) {
		t.Errorf("the machine's runtime was asked about a user's container: %+v", e)
		return nil, fs.ErrNotExist
	}
	if a := n.ask(Key{ID: hexID, Runtime: containerd, User: "4294967294"}); a != nil {
		t.Errorf("%+v", a)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	var none *Names
	if none.Changes() != 0 || none.Waiting() || none.Close() != nil {
		t.Error("nil is somebody")
	}
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		env         map[string]string
		first, bad  string
		cri, engine int
	}{
		{nil, "/run/containerd/containerd.sock", "", 6, 2},
		{map[string]string{"CONTAINER_RUNTIME_ENDPOINT": "unix:///run/x.sock"},
			"/run/x.sock", "", 1, 2},
		{map[string]string{"CONTAINER_RUNTIME_ENDPOINT": "/run/x.sock"}, "/run/x.sock", "",
			1, 2},
		{map[string]string{"CONTAINER_RUNTIME_ENDPOINT": "tcp://1.2.3.4:5"}, "/run/docker.sock", `"tcp://1.2.3.4:5"`, 0, 2},
		{map[string]string{"DOCKER_HOST": "unix:///d", "CONTAINER_HOST": "unix:///p"}, "/d",
			"", 6, 2},
		{map[string]string{"DOCKER_HOST": "ssh://somewhere"},
			"/run/containerd/containerd.sock", "DOCKER_HOST", 6, 1},
	} {
		list, err := Endpoints(func(name string) string { return c.env[name] })
		cri := 0
		for _, e := range list {
			if e.CRI {
				cri++
			}
		}
		if list[0].Path != c.first || cri != c.cri || len(list)-cri != c.engine {
			t.Errorf("%v: %+v", c.env, list)
		}
		if (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(),
			c.bad) {
			t.Errorf("%v: %v", c.env, err)
		}
	}
}
