// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/synspy/synspy/internal/event"
)

const sandboxID = "ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// listenAt returns a unix socket; its directory's name is short.
func listenAt(t *testing.T) (string, net.Listener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "synspy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, l
}

// criServer is a CRI runtime. As real ones do, it takes the ID of a filter for a prefix.
type criServer struct {
	cri.UnimplementedRuntimeServiceServer
	containers []*cri.Container
	pods       []*cri.PodSandbox
	name       string
}

func (s *criServer) ListContainers(_ context.Context,
	r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	out := &cri.ListContainersResponse{}
	for _, c := range s.containers {
		if strings.HasPrefix(c.Id, r.Filter.Id) {
			out.Containers = append(out.Containers, c)
		}
	}
	return out, nil
}

func (s *criServer) ListPodSandbox(_ context.Context,
	r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	out := &cri.ListPodSandboxResponse{}
	for _, p := range s.pods {
		if strings.HasPrefix(p.Id, r.Filter.Id) {
			out.Items = append(out.Items, p)
		}
	}
	return out, nil
}

func (s *criServer) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: s.name}, nil
}

func serveCRI(t *testing.T, s cri.RuntimeServiceServer) runtime {
	t.Helper()
	path, l := listenAt(t)
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	r, err := dialCRI(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close() })
	return r
}

func TestCRI(t *testing.T) {
	server := &criServer{name: "cri-o",
		containers: []*cri.Container{
			{Id: hexID + "0", Metadata: &cri.ContainerMetadata{Name: "longer"}},
			{Id: hexID, PodSandboxId: sandboxID,
				Metadata: &cri.ContainerMetadata{Name: "app"}},
			{Id: "bare"},
		},
		pods: []*cri.PodSandbox{
			{Id: sandboxID, Metadata: &cri.PodSandboxMetadata{Namespace: "prod",
				Name: "api", Uid: "u"}},
			{Id: "bare-pod"},
		}}
	r := serveCRI(t, server)
	for id, want := range map[string]*Answer{
		hexID: {Name: "app", Runtime: crio, Pod: &event.Pod{Namespace: "prod",
			Name: "api", UID: "u", Container: "app"}},
		sandboxID: {Runtime: crio, Pod: &event.Pod{Namespace: "prod", Name: "api",
			UID: "u"}},
		hexID[:12]: nil,
		"bare":     nil,
		"bare-pod": nil,
	} {
		got, err := r.ask(t.Context(), id)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%s: %v %s", id, err, diff)
		}
		if want == nil && !errors.Is(err, errUnknown) {
			t.Errorf("%s: %v", id, err)
		}
	}
	// Something else that speaks gRPC.
	if a, err := serveCRI(t, &cri.UnimplementedRuntimeServiceServer{}).ask(t.Context(),
		hexID); err == nil || errors.Is(err, errUnknown) {
		t.Errorf("not implemented: %+v, %v", a, err)
	}
	// Too much to be one container.
	server.containers[1].Annotations = map[string]string{"x": strings.Repeat("y", maxMessage)}
	if a, err := r.ask(t.Context(), hexID); err == nil {
		t.Errorf("a megabyte: %+v", a)
	}
}

func serveHTTP(t *testing.T, kind string, f http.HandlerFunc) *engine {
	t.Helper()
	path, l := listenAt(t)
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return newEngine(Endpoint{Path: path, Runtime: kind})
}

func TestEngine(t *testing.T) {
	kubelet := map[string]string{"io.kubernetes.pod.name": "api",
		"io.kubernetes.pod.namespace": "prod",
		"io.kubernetes.pod.uid":       "u", "io.kubernetes.container.name": "app"}
	sandbox := map[string]string{"io.kubernetes.pod.name": "api",
		"io.kubernetes.pod.namespace": "prod",
		"io.kubernetes.docker.type":   "podsandbox", "io.kubernetes.container.name": "POD"}
	for _, c := range []struct {
		name   string
		answer inspection
		server string
		status int
		want   *Answer
	}{
		{"docker", inspection{ID: hexID, Name: "/web"}, "Docker/20.10.24 (linux)", 200,
			&Answer{Name: "web", Runtime: docker}},
		{"podman in its place", inspection{ID: hexID, Name: "web"}, "Libpod/4.3.1 (linux)",
			200, &Answer{Name: "web", Runtime: podman}},
		{"kubelet's", labelled("/k8s_app_api_prod_u_0", kubelet), "", 200,
			&Answer{Name: "app", Runtime: docker, Pod: &event.Pod{Namespace: "prod",
				Name: "api", UID: "u", Container: "app"}}},
		{"kubelet's sandbox", labelled("/k8s_POD_api_prod_u_0", sandbox), "", 200,
			&Answer{Runtime: docker, Pod: &event.Pod{Namespace: "prod", Name: "api"}}},
		{"hostile", inspection{ID: hexID, Name: "/\x1b[2J\n\"<b>"}, "", 200,
			&Answer{Name: "\x1b[2J\n\"<b>", Runtime: docker}},
		{"another", inspection{ID: sandboxID, Name: "/web"}, "", 200, nil},
		{"unknown", inspection{}, "", 404, nil},
		{"broken", inspection{ID: hexID, Name: "/web"}, "", 500, nil},
		{"elsewhere", inspection{ID: hexID, Name: "/web"}, "", 301, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := serveHTTP(t, docker, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet ||
					r.URL.Path != "/containers/"+hexID+"/json" {
					t.Errorf("%s %s", r.Method, r.URL)
				}
				w.Header().Set("Server", c.server)
				w.Header().Set("Location",
					"http://localhost/containers/"+hexID+"/json")
				w.WriteHeader(c.status)
				_ = json.NewEncoder(w).Encode(c.answer)
			})
			got, err := e.ask(t.Context(), hexID)
			if diff := cmp.Diff(c.want, got); diff != "" ||
				(err == nil) != (c.want != nil) {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
	endless := serveHTTP(t, docker, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write([]byte(`[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[`)); err != nil {
				return
			}
		}
	})
	if a, err := endless.ask(t.Context(), hexID); err == nil {
		t.Errorf("endless: %+v", a)
	}
}

func labelled(name string, labels map[string]string) inspection {
	c := inspection{ID: hexID, Name: name}
	c.Config.Labels = labels
	return c
}
