// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// engine is Docker's HTTP API, which Podman has as well.
type engine struct {
	runtime string
	client  http.Client
}

func newEngine(at Endpoint) *engine {
	return &engine{runtime: at.Runtime, client: http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn,
				error) {
				return at.connect(ctx)
			},
			DisableKeepAlives: true, // asked a few times a minute at most
		},
		CheckRedirect: func(*http.Request,
			[]*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
}

func (e *engine) close() error { return nil }

// inspection is what is read of GET /containers/ID/json.
type inspection struct {
	ID     string `json:"Id"`
	Name   string
	Config struct {
		Labels map[string]string
	}
}

// ask inspects the container of that ID.
func (e *engine) ask(ctx context.Context, id string) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://localhost/containers/"+id+"/json", nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, errUnknown
	default:
		return nil, fmt.Errorf("inspect container: HTTP status %d", resp.StatusCode)
	}
	var c inspection
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(&c); err != nil {
		return nil, fmt.Errorf("inspect container: %w", err)
	}
	if c.ID != id {
		return nil, errUnknown
	}
	a := &Answer{Name: strings.TrimPrefix(c.Name, "/"), Runtime: e.runtime}
	if strings.HasPrefix(resp.Header.Get("Server"), "Libpod/") { // it may stand in for Docker
		a.Runtime = podman
	}
	// What a kubelet that runs Docker leaves (pkg/kubelet/types/labels.go).
	labels := c.Config.Labels
	if name := labels["io.kubernetes.pod.name"]; name != "" {
		a.Pod = &event.Pod{Namespace: labels["io.kubernetes.pod.namespace"], Name: name,
			UID: labels["io.kubernetes.pod.uid"], Container: labels["io.kubernetes.container.name"]}
		switch {
		case labels["io.kubernetes.docker.type"] == "podsandbox":
			a.Name, a.Pod.Container = "", ""
		case a.Pod.Container != "":
			a.Name = a.Pod.Container // the pod's name for it, not k8s_app_api-7f9c_…
		}
	}
	return a, nil
}
