// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner/containers"
)

const (
	hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	uid   = "12345678-90ab-cdef-1234-567890abcdef"
	uid_  = "12345678_90ab_cdef_1234_567890abcdef"
)

var outerID = strings.Repeat("f", 64)

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
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + hexID + ".scope", hexID, "containerd", uid},
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/crio-" + hexID + ".scope", hexID, "cri-o", uid},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice/docker-" + hexID + ".scope", hexID, "docker", uid},
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/crio-conmon-" + hexID + ".scope", "", "", uid},
		{"/kubepods.slice/kubepods-pod" + hash + ".slice/crio-" + hexID + ".scope", hexID, "cri-o", hash},
		{"/kubepods/burstable/pod" + uid + "/" + hexID, hexID, "", uid},
		{"/kubepods/pod" + uid + "/" + hexID, hexID, "", uid},
		{"/kubepods/besteffort/pod" + uid + "/crio-" + hexID, hexID, "cri-o", uid},
		{"/system.slice/containerd.service/kubepods-burstable-pod" + uid_ + ".slice:cri-containerd:" + hexID, hexID, "containerd", uid},
		{"/../../kubepods/pod" + uid + "/" + hexID, hexID, "", uid},
		// nerdctl with the cgroupfs driver; the namespace could be anyone's directory.
		{"/default/" + hexID, hexID, "", ""},
		// What a user of ctr calls a container is no ID.
		{"/default/web", "", "", ""},
		{"/system.slice/system-docker.slice/docker-" + hexID + ".scope", hexID, "docker", ""},
		// Rootless.
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + hexID + ".scope", hexID, "docker", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-" + hexID + ".scope", hexID, "containerd", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + hexID + ".scope/container", hexID, "podman", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-" + hexID + ".scope", "", "", ""},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4242.scope", "", "", ""},
		// Podman's pods are no Kubernetes pods.
		{"/machine.slice/machine-libpod_pod_" + hexID + ".slice/libpod-" + hexID + ".scope/container", hexID, "podman", ""},
		{"/libpod_parent/" + strings.Repeat("f", 64) + "/libpod-" + hexID, hexID, "podman", ""},
		// CRI-O: crun moves the container one down; conmon has a cgroup of its own, or the pod's.
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/crio-" + hexID + ".scope/container", hexID, "cri-o", uid},
		{"/kubepods/burstable/pod" + uid + "/crio-conmon-" + hexID, "", "", uid},
		{"/system.slice/crio-conmon-" + hexID + ".scope", "", "", ""},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice", "", "", uid},
		// A process that is not in a container of the pod, only in its cgroup.
		{"/kubepods/burstable/pod" + uid, "", "", uid},
		// systemd in the container.
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/cri-containerd-" + hexID + ".scope/system.slice/nginx.service", hexID, "containerd", uid},
		// Nested: the outermost counts.
		{"/docker/" + outerID + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uid_ + ".slice/cri-containerd-" + hexID + ".scope", outerID, "docker", ""},
		{"/system.slice/docker-" + outerID + ".scope/kubepods.slice/kubepods-pod" + uid_ + ".slice/cri-containerd-" + hexID + ".scope", outerID, "docker", ""},
		{"/system.slice/docker-" + outerID + ".scope/kubepods/pod" + uid, outerID, "docker", ""},
		{"/kubepods/pod" + uid + "/" + outerID + "/docker/" + hexID, outerID, "", uid},
		// Not quite.
		{"/docker/" + hexID[1:], "", "", ""},
		{"/docker/" + strings.ToUpper(hexID), "", "", ""},
		{"/pod" + uid + "/" + hexID, hexID, "", ""},
		{"/kubepods/pod../" + hexID, hexID, "", ""},
		{"", "", "", ""},
	} {
		container, pod := containerOf(c.path, nil)
		var id, runtime, uid string
		if container != nil {
			id, runtime = container.ID, container.Runtime
		}
		if pod != nil {
			uid = pod.UID
		}
		if id != c.id || runtime != c.runtime || uid != c.pod {
			t.Errorf("%s:\n got %q %q pod %q\nwant %q %q pod %q", c.path, id, runtime, uid, c.id, c.runtime, c.pod)
		}
	}
}

func TestKeyOf(t *testing.T) {
	c := &event.Container{ID: hexID, Runtime: "podman"}
	for path, user := range map[string]string{
		"/machine.slice/x": "",
		"/user.slice/user-1000.slice/user@1000.service/user.slice/x": "1000",
		"/user.slice/user-1000.slice/session-3.scope/x":              "1000",
		"/user.slice/user-0.slice/user@0.service/x":                  "",
		"/user.slice/user-..slice/x":                                 "",
		"/user.slice/user-1000.slice.d/x":                            "",
		"/user.slice/user-4294967296.slice/x":                        "",
	} {
		if got, want := keyOf(path, c), (containers.Key{ID: hexID, Runtime: "podman", User: user}); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if got := keyOf("/a", nil); got != (containers.Key{}) {
		t.Errorf("no container: %+v", got)
	}
}

// TestForgedContainer makes a cgroup with the names of another container and its pod inside a container's own: that is
// named, unless synspy is in it as well.
func TestForgedContainer(t *testing.T) {
	outer := "/docker/" + outerID
	forged := outer + "/kubepods/pod" + uid + "/cri-containerd-" + hexID + ".scope"
	for own, want := range map[string]string{"/user.slice": outerID, outer + "0/init": outerID, outer: hexID, outer + "/init": hexID} {
		c, pod := containerOf(forged, []membership{{path: own}})
		if c == nil || c.ID != want || (pod != nil) != (want == hexID) {
			t.Errorf("seen from %s: container %+v pod %+v, want %s", own, c, pod, want)
		}
		if got := keyOf(forged, c); got.ID != want {
			t.Errorf("seen from %s: the runtimes are asked for %+v", own, got)
		}
	}
}

// The mounts of the common set-ups; %D is a directory of the test.
const (
	mountsV2 = "29 23 0:26 / %D/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsV1 = "31 23 0:28 / %D rw - tmpfs tmpfs rw\n" +
		"32 31 0:30 / %D/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:33 / %D/mem\\040ory rw - cgroup cgroup rw,memory\n" +
		"34 31 0:34 / %D/pids rw - cgroup cgroup rw,pids\n" +
		"35 31 0:35 / %D/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
	mountsHybrid = mountsV1 + "36 31 0:36 / %D/unified rw - cgroup2 cgroup2 rw\n"
	// In a container with its own cgroup namespace and the host's tree bound in.
	mountsHostBind = "50 49 0:26 /../../.. %D/host ro - cgroup2 cgroup2 rw\n"
	mountsOwnOnly  = "50 49 0:26 / %D/cg ro - cgroup2 cgroup2 rw\n"
	mountsSub      = "50 49 0:26 /a/b %D/sub ro - cgroup2 cgroup2 rw\n"
)

func TestChooseCgroup(t *testing.T) {
	for _, c := range []struct {
		name, mounts, cgroup string
		path, dir            string
	}{
		{"v2", mountsV2, "0::/system.slice/nginx.service\n", "/system.slice/nginx.service", "cg/system.slice/nginx.service"},
		{"v2 root", mountsV2, "0::/\n", "/", "cg"},
		{"v2 colon", mountsV2, "0::/a:b:c\n", "/a:b:c", "cg/a:b:c"},
		{"v2 deleted", mountsV2, "0::/gone (deleted)\n", "/gone", ""},
		{"v1 systemd first", mountsV1, "4:memory:/m\n2:cpu,cpuacct:/c\n1:name=systemd:/s\n", "/s", "systemd/s"},
		{"v1 cpu next", mountsV1, "4:memory:/m\n2:cpu,cpuacct:/c\n1:name=systemd:/\n", "/c", "cpu/c"},
		{"v1 memory next", mountsV1, "4:memory:/m\n3:pids:/p\n2:cpu,cpuacct:/\n1:name=systemd:/\n", "/m", "mem ory/m"},
		{"v1 other", mountsV1, "9:devices:/d\n2:cpu,cpuacct:/\n", "/d", ""},
		{"v1 all root", mountsV1, "4:memory:/\n1:name=systemd:/\n", "/", "systemd"},
		{"hybrid v2", mountsHybrid, "4:memory:/m\n1:name=systemd:/s\n0::/u\n", "/u", "unified/u"},
		{"hybrid v2 root", mountsHybrid, "4:memory:/m\n1:name=systemd:/\n0::/\n", "/m", "mem ory/m"},
		{"hybrid all root", mountsHybrid, "4:memory:/\n1:name=systemd:/\n0::/\n", "/", "unified"},
		{"hybrid container", mountsHybrid, "4:memory:/docker/" + hexID + "\n1:name=systemd:/docker/" + hexID + "\n0::/system.slice/containerd.service\n",
			"/docker/" + hexID, "systemd/docker/" + hexID},
		{"hybrid container in v2 too", mountsHybrid, "1:name=systemd:/system.slice/docker-" + hexID + ".scope\n0::/system.slice/docker-" + hexID + ".scope\n",
			"/system.slice/docker-" + hexID + ".scope", "unified/system.slice/docker-" + hexID + ".scope"},
		{"v1 container, systemd elsewhere", mountsV1, "4:memory:/kubepods/pod" + uid + "/" + hexID + "\n1:name=systemd:/system.slice/crio.service\n",
			"/kubepods/pod" + uid + "/" + hexID, "mem ory/kubepods/pod" + uid + "/" + hexID},
		{"host tree bound in", mountsHostBind, "0::/../../../kubepods/pod1\n", "/kubepods/pod1", "host/kubepods/pod1"},
		{"host root", mountsHostBind, "0::/../../..\n", "/", "host"},
		{"host tree, own", mountsHostBind, "0::/mine\n", "/mine", ""},
		{"only our own tree", mountsOwnOnly, "0::/../../other\n", "/../../other", ""},
		{"only our own tree, sibling", mountsOwnOnly, "0::/..\n", "/..", ""},
		{"bound subtree", mountsSub, "0::/a/b/c\n", "/a/b/c", "sub/c"},
		{"beside a bound subtree", mountsSub, "0::/a/bc\n", "/a/bc", ""},
		{"not mounted", "", "0::/x\n", "/x", ""},
		{"none", mountsV2, "", "", ""},
		{"garbage", mountsV2, "0:\nx::relative\n\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			mounts := parseMounts([]byte(strings.ReplaceAll(c.mounts, "%D", root)))
			want := &event.Cgroup{Path: c.path}
			if c.dir != "" {
				dir := filepath.Join(root, c.dir)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				want.ID = inodeOf(dir)
			}
			if c.path == "" {
				want = nil
			}
			if diff := cmp.Diff(want, mounts.choose(parseMemberships([]byte(c.cgroup)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFindCgroup(t *testing.T) {
	root := t.TempDir()
	tab := none(t)
	tab.proc.mounts = parseMounts([]byte(strings.ReplaceAll(mountsHybrid, "%D", root)))
	dir := filepath.Join(root, "unified/a/b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a/b", "a/b/", dir} {
		got, err := tab.FindCgroup(path)
		if want := (event.Cgroup{ID: inodeOf(dir), Path: "/a/b"}); err != nil || got != want {
			t.Errorf("%s: got %v, %v", path, got, err)
		}
	}
	if _, err := tab.FindCgroup("/a/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestMatchCgroup(t *testing.T) {
	for _, c := range []struct {
		pattern, cgroup string
		want            bool
	}{
		{"/a", "/a", true},
		{"/a", "/a/b/c", true},
		{"/a", "/ab", false},
		{"/a/b", "/a", false},
		{"/", "/a", true},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", true}, // below what matches
		{"/a/*/c", "/a/b/c", true},
		{"/a/*", "/a", false},
		{"/a[", "/a[", true},
		{"/a[", "/b", false},
		{"/x", "/../../x", false},
	} {
		if got := MatchCgroup(c.pattern, c.cgroup); got != c.want {
			t.Errorf("MatchCgroup(%q, %q) = %t", c.pattern, c.cgroup, got)
		}
	}
}

func TestMatch(t *testing.T) {
	tab := none(t)
	tab.Replace([]Holder{
		{Socket: 1, Inode: 1, PID: 100, Comm: "nginx", StartNs: 1e9},
		{Socket: 1, Inode: 1, PID: 101, Comm: "a[0]", StartNs: 1e9},
	})
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{PID: 101}, true},
		{Filter{PID: 102}, false},
		{Filter{Comm: "ngi*"}, true},
		{Filter{Comm: "ngi"}, false},
		{Filter{Comm: "a[0]"}, true},
		{Filter{PID: 101, Comm: "nginx"}, false}, // not the same process
		{Filter{Cgroup: "/"}, false},             // unknown is not everywhere
	} {
		if got, pending := tab.Match(1, c.f); got != c.want || pending {
			t.Errorf("%+v: %t", c.f, got)
		}
	}
	if got, _ := tab.Match(2, Filter{PID: 100}); got {
		t.Error("unknown socket matches")
	}
	if (Filter{Comm: "a["}).Validate() == nil || (Filter{Comm: "a*", Cgroup: "/b"}).Validate() != nil {
		t.Error("Validate")
	}
}

func TestParseStat(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21\n"
	for _, comm := range []string{"nginx", "a) S 1 (b", "\n\x1b[31m\xff", ""} {
		got, err := parseStat([]byte("7 (" + comm + ")" + tail))
		if err != nil || got != (stat{comm, 4242}) {
			t.Errorf("%q: %+v, %v", comm, got, err)
		}
	}
	for _, bad := range []string{"", "7 nginx S", "7 (nginx) S 1", "7 )(" + tail} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestBootOffset(t *testing.T) {
	if got := bootOffset([]byte("monotonic           0         0\nboottime        -10         5\n")); got != -10e9+5 {
		t.Errorf("got %d", got)
	}
	p := procfs{bootNs: 3e9}
	if got := p.ticks(p.nanoseconds(777)); got != 777 {
		t.Errorf("there and back: %d", got)
	}
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte("0::/a\n1:name=systemd:/b\n"), []byte(mountsHybrid))
	f.Add([]byte("0::/../../a\n"), []byte("50 49 0:26 /../.. /host\\04 ro - cgroup2 c rw\n"))
	f.Fuzz(func(t *testing.T, cgroup, mounts []byte) {
		if cg := parseMounts(mounts).choose(parseMemberships(cgroup)); cg != nil {
			containerOf(cg.Path, nil)
		}
		_, _ = parseStat(cgroup)
		bootOffset(mounts)
	})
}
