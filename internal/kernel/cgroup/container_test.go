// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"strings"
	"testing"
)

func TestContainerOf(t *testing.T) {
	hash := strings.Repeat("ab", 16)
	for _, c := range []struct{ path, id, runtime, pod string }{
		{"/", "", "", ""},
		{"/system.slice/nginx.service", "", "", ""},
		{"/docker/" + hexID, hexID, "docker", ""},
		{"/docker/" + hexID + "/init", hexID, "docker", ""},
		{"/system.slice/docker-" + hexID + ".scope", hexID, "docker", ""},
		{"/ecs/task/" + hexID, hexID, "", ""},
		{"/k8s.io/" + hexID, hexID, "containerd", ""},
		{"/user.slice/nerdctl-" + hexID + ".scope", hexID, "containerd", ""},
		{"/machine.slice/libpod-" + hexID + ".scope", hexID, "podman", ""},
		{"/machine.slice/libpod-" + hexID + ".scope/container", hexID, "podman", ""},
		{"/libpod_parent/libpod-" + hexID, hexID, "podman", ""},
		{"/machine.slice/libpod-conmon-" + hexID + ".scope", "", "", ""},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ +
			".slice/cri-containerd-" + hexID + ".scope", hexID, "containerd", uid},
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/crio-" + hexID + ".scope", hexID,
			"cri-o", uid},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ +
			".slice/docker-" + hexID + ".scope", hexID, "docker", uid},
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/crio-conmon-" + hexID + ".scope",
			"", "", uid},
		{"/kubepods.slice/kubepods-pod" + hash + ".slice/crio-" + hexID + ".scope", hexID,
			"cri-o", hash},
		{"/kubepods/burstable/pod" + uid + "/" + hexID, hexID, "", uid},
		{"/kubepods/pod" + uid + "/" + hexID, hexID, "", uid},
		{"/kubepods/besteffort/pod" + uid + "/crio-" + hexID, hexID, "cri-o", uid},
		{"/system.slice/containerd.service/kubepods-burstable-pod" + uid_ +
			".slice:cri-containerd:" + hexID, hexID, "containerd", uid},
		{"/../../kubepods/pod" + uid + "/" + hexID, hexID, "", uid},
		// nerdctl with the cgroupfs driver; the namespace could be anyone's directory.
		{"/default/" + hexID, hexID, "", ""},
		// What a user of ctr calls a container is no ID.
		{"/default/web", "", "", ""},
		{"/system.slice/system-docker.slice/docker-" + hexID + ".scope", hexID, "docker",
			""},
		// Rootless.
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + hexID +
			".scope", hexID, "docker", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-" + hexID +
			".scope", hexID, "containerd", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + hexID +
			".scope/container", hexID, "podman", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-" + hexID +
			".scope", "", "", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4242.scope", "",
			"", ""},
		// Podman's pods are no Kubernetes pods.
		{"/machine.slice/machine-libpod_pod_" + hexID + ".slice/libpod-" + hexID +
			".scope/container", hexID, "podman", ""},
		{"/libpod_parent/" + strings.Repeat("f", 64) + "/libpod-" + hexID, hexID, "podman",
			""},
		// CRI-O: crun moves the container one down; conmon has a cgroup of its own, or the
		// pod's.
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ +
			".slice/crio-" + hexID + ".scope/container", hexID, "cri-o", uid},
		{"/kubepods/burstable/pod" + uid + "/crio-conmon-" + hexID, "", "", uid},
		{"/system.slice/crio-conmon-" + hexID + ".scope", "", "", ""},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ +
			".slice", "", "", uid},
		// A process that is not in a container of the pod, only in its cgroup.
		{"/kubepods/burstable/pod" + uid, "", "", uid},
		// systemd in the container.
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/cri-containerd-" + hexID +
			".scope/system.slice/nginx.service", hexID, "containerd", uid},
		// Nested: the outermost counts.
		{"/docker/" + outerID +
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uid_ +
			".slice/cri-containerd-" + hexID + ".scope", outerID, "docker", ""},
		{"/system.slice/docker-" + outerID + ".scope/kubepods.slice/kubepods-pod" + uid_ +
			".slice/cri-containerd-" + hexID + ".scope", outerID, "docker", ""},
		{"/system.slice/docker-" + outerID + ".scope/kubepods/pod" + uid, outerID, "docker",
			""},
		{"/kubepods/pod" + uid + "/" + outerID + "/docker/" + hexID, outerID, "", uid},
		// Not quite.
		{"/docker/" + hexID[1:], "", "", ""},
		{"/docker/" + strings.ToUpper(hexID), "", "", ""},
		{"/pod" + uid + "/" + hexID, hexID, "", ""},
		{"/kubepods/pod../" + hexID, hexID, "", ""},
		{"", "", "", ""},
	} {
		container, pod := ContainerOf(c.path, nil)
		var id, runtime, uid string
		if container != nil {
			id, runtime = container.ID, container.Runtime
		}
		if pod != nil {
			uid = pod.UID
		}
		if id != c.id || runtime != c.runtime || uid != c.pod {
			t.Errorf("%s:\n got %q %q pod %q\nwant %q %q pod %q", c.path, id, runtime,
				uid, c.id, c.runtime, c.pod)
		}
	}
}

func TestUserOf(t *testing.T) {
	for path, user := range map[string]string{
		"/machine.slice/x": "",
		"/user.slice/user-1000.slice/user@1000.service/user.slice/x": "1000",
		"/user.slice/user-1000.slice/session-3.scope/x":              "1000",
		"/user.slice/user-0.slice/user@0.service/x":                  "",
		"/user.slice/user-..slice/x":                                 "",
		"/user.slice/user-1000.slice.d/x":                            "",
		"/user.slice/user-4294967296.slice/x":                        "",
	} {
		if got := UserOf(path); got != user {
			t.Errorf("%s: user %q, want %q", path, got, user)
		}
	}
}

// TestForgedContainer makes a cgroup with the names of another container and its pod inside a
// container's own: that is named, unless synspy is in it as well.
func TestForgedContainer(t *testing.T) {
	outer := "/docker/" + outerID
	forged := outer + "/kubepods/pod" + uid + "/cri-containerd-" + hexID + ".scope"
	for own, want := range map[string]string{"/user.slice": outerID, outer + "0/init": outerID,
		outer: hexID, outer + "/init": hexID} {
		c, pod := ContainerOf(forged, []Membership{{path: own}})
		if c == nil || c.ID != want || (pod != nil) != (want == hexID) {
			t.Errorf("seen from %s: container %+v pod %+v, want %s", own, c, pod, want)
		}
	}
}

func FuzzContainerOf(f *testing.F) {
	f.Add("/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope")
	f.Add("/../../a")
	f.Fuzz(func(_ *testing.T, path string) { ContainerOf(path, nil) })
}

const (
	hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	uid   = "12345678-90ab-cdef-1234-567890abcdef"
	uid_  = "12345678_90ab_cdef_1234_567890abcdef"
)

var outerID = strings.Repeat("f", 64)
