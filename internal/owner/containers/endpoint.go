// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Endpoint is a unix socket at which a runtime answers.
type Endpoint struct {
	Path string
	CRI  bool // else the HTTP API of Docker, which Podman has as well

	// Runtime is the only one whose containers it knows; empty where it may be any.
	Runtime string

	// User is the UID, in decimal, of the user whose it is and who may put there what he likes;
	// empty for the machine's own.
	User string
}

// Runtimes, as records call them.
const (
	containerd = "containerd"
	crio       = "cri-o"
	docker     = "docker"
	podman     = "podman"
)

// usual are the places where distributions of runtimes put their sockets.
var usual = []Endpoint{
	{Path: "/run/containerd/containerd.sock", CRI: true, Runtime: containerd},
	{Path: "/run/k3s/containerd/containerd.sock", CRI: true,
		Runtime: containerd}, // k3s and RKE2
	{Path: "/run/k0s/containerd.sock", CRI: true, Runtime: containerd},
	{Path: "/var/snap/microk8s/common/run/containerd.sock", CRI: true, Runtime: containerd},
	{Path: "/run/crio/crio.sock", CRI: true, Runtime: crio},
	{Path: "/run/cri-dockerd.sock", CRI: true, Runtime: docker},
	{Path: "/run/docker.sock", Runtime: docker},
	{Path: "/run/podman/podman.sock", Runtime: podman},
}

// Endpoints lists where to ask. CONTAINER_RUNTIME_ENDPOINT takes the place of
// the usual CRI sockets, as crictl has it; DOCKER_HOST and CONTAINER_HOST that
// of Docker's and Podman's. An error says which of them names no unix socket:
// then nobody is asked in its place.
func Endpoints(getenv func(string) string) ([]Endpoint, error) {
	var list []Endpoint
	var bad []string
	replace := func(variable, runtime string, cri bool) (replaced bool) {
		value := getenv(variable)
		if value == "" {
			return false
		}
		path := strings.TrimPrefix(value, "unix://")
		if !filepath.IsAbs(path) {
			bad = append(bad, fmt.Sprintf("%s=%q", variable, value))
		} else {
			list = append(list, Endpoint{Path: path, CRI: cri, Runtime: runtime})
		}
		return true
	}
	instead := map[Endpoint]bool{
		{CRI: true}:       replace("CONTAINER_RUNTIME_ENDPOINT", "", true),
		{Runtime: docker}: replace("DOCKER_HOST", docker, false),
		{Runtime: podman}: replace("CONTAINER_HOST", podman, false),
	}
	for _, e := range usual {
		kind := Endpoint{CRI: e.CRI}
		if !e.CRI {
			kind.Runtime = e.Runtime
		}
		if !instead[kind] {
			list = append(list, e)
		}
	}
	if len(bad) > 0 {
		return list, fmt.Errorf("ask container runtimes: %s is no unix:// socket",
			strings.Join(bad, ", "))
	}
	return list, nil
}

// usersRun is where each user has a directory of his own.
const usersRun = "/run/user/"

// ofUser are the sockets of a user's own runtimes (rootless Docker and Podman).
func ofUser(uid string) []Endpoint {
	return []Endpoint{
		{Path: usersRun + uid + "/podman/podman.sock", Runtime: podman, User: uid},
		{Path: usersRun + uid + "/docker.sock", Runtime: docker, User: uid},
	}
}

// mayKnow reports whether it makes sense to ask there.
func (e Endpoint) mayKnow(k Key) bool {
	return e.Runtime == "" || k.Runtime == "" || e.Runtime == k.Runtime
}
