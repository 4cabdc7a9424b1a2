// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// scopes are the prefixes that runtimes give to a container's cgroup.
var scopes = []struct{ prefix, runtime string }{
	{"docker-", "docker"},
	{"cri-containerd-", "containerd"},
	{"nerdctl-", "containerd"},
	{"crio-", "cri-o"},
	{"libpod-", "podman"},
}

// parents are the directories that runtimes with the cgroupfs driver put their
// containers in. Below kubepods it may be anyone's.
var parents = map[string]string{
	"docker": "docker",
	"k8s.io": "containerd",
}

// ContainerOf reads a cgroup's path: the container is the outermost one named in it of those that
// synspy itself (own) is not in, the pod the deepest above or at that. Who is root in a container
// may give the cgroups below it any name, that of another container of the machine, or of a pod,
// too. Nil means that there is none, or that its path has none of the forms known here.
func ContainerOf(path string, own []Membership) (*event.Container, *event.Pod) {
	elements := strings.Split(path, "/")
	var container *event.Container
	var pod *event.Pod
	for i := 1; i < len(elements); i++ {
		if uid := podElement(elements[i], elements[:i]); uid != "" {
			pod = &event.Pod{UID: uid}
		}
		id, runtime := containerElement(elements[i], elements[i-1])
		if id == "" {
			continue
		}
		container = &event.Container{ID: id, Runtime: runtime}
		here := strings.Join(elements[:i+1], "/")
		if !slices.ContainsFunc(own, func(m Membership) bool {
			return m.path == here ||
				strings.HasPrefix(m.path, here+"/")
		}) {
			break
		}
	}
	return container, pod
}

// containerElement reads one element of a path.
func containerElement(element, parent string) (id, runtime string) {
	name := strings.TrimSuffix(element, ".scope")
	for _, s := range scopes {
		if id, ok := strings.CutPrefix(name, s.prefix); ok && isContainerID(id) {
			return id, s.runtime
		}
	}
	// containerd with systemd's form of the name but the cgroupfs driver:
	// kubepods-…-pod<uid>.slice:cri-containerd:<id>
	if f := strings.Split(name, ":"); len(f) == 3 && isContainerID(f[2]) {
		for _, s := range scopes {
			if f[1]+"-" == s.prefix {
				return f[2], s.runtime
			}
		}
	}
	if isContainerID(element) && parent != "libpod_parent" { // there it is a pod of Podman's
		return element, parents[parent]
	}
	return "", ""
}

// podElement reads the pod's UID from kubepods[-class]-pod<uid>.slice, which
// has _ for -, or from pod<uid> somewhere below kubepods.
func podElement(element string, above []string) string {
	// With a container's name after it where both share an element.
	slice, _, _ := strings.Cut(element, ":")
	if name, ok := strings.CutSuffix(slice, ".slice"); ok && strings.Contains(name,
		"kubepods") {
		if i := strings.LastIndex(name, "-pod"); i >= 0 {
			return podUID(strings.ReplaceAll(name[i+len("-pod"):], "_", "-"))
		}
		return ""
	}
	if uid, ok := strings.CutPrefix(element, "pod"); ok {
		for _, e := range above {
			if strings.Contains(e, "kubepods") {
				return podUID(uid)
			}
		}
	}
	return ""
}

// UserOf is the user below whose slice a cgroup is; empty: nobody's, or root's. There the tree of
// cgroups is his, and so are the names in it.
func UserOf(path string) (user string) {
	for element := range strings.SplitSeq(path, "/") {
		uid, ok := cutBoth(element, "user@", ".service")
		if !ok {
			uid, ok = cutBoth(element, "user-", ".slice")
		}
		if n, err := strconv.ParseUint(uid, 10, 32); ok && err == nil && n != 0 {
			user = strconv.FormatUint(n, 10)
		}
	}
	return user
}

func cutBoth(s, prefix, suffix string) (string, bool) {
	s, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, suffix)
}

// podUID accepts a UUID, or the 32 digits of a static pod's hash.
func podUID(s string) string {
	bare := strings.ReplaceAll(s, "-", "")
	if len(bare) != 32 || !isHex(bare) {
		return ""
	}
	return s
}

func isContainerID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
