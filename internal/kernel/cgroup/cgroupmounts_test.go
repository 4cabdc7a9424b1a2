// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/event"
)

func TestChooseCgroup(t *testing.T) {
	for _, c := range []struct {
		name, mounts, cgroup string
		path, dir            string
	}{
		{"v2", mountsV2, "0::/system.slice/nginx.service\n", "/system.slice/nginx.service",
			"cg/system.slice/nginx.service"},
		{"v2 root", mountsV2, "0::/\n", "/", "cg"},
		{"v2 colon", mountsV2, "0::/a:b:c\n", "/a:b:c", "cg/a:b:c"},
		{"v2 deleted", mountsV2, "0::/gone (deleted)\n", "/gone", ""},
		{"v1 systemd first", mountsV1, "4:memory:/m\n2:cpu,cpuacct:/c\n1:name=systemd:/s\n",
			"/s", "systemd/s"},
		{"v1 cpu next", mountsV1, "4:memory:/m\n2:cpu,cpuacct:/c\n1:name=systemd:/\n", "/c",
			"cpu/c"},
		{"v1 memory next", mountsV1,
			"4:memory:/m\n3:pids:/p\n2:cpu,cpuacct:/\n1:name=systemd:/\n", "/m",
			"mem ory/m"},
		{"v1 other", mountsV1, "9:devices:/d\n2:cpu,cpuacct:/\n", "/d", ""},
		{"v1 all root", mountsV1, "4:memory:/\n1:name=systemd:/\n", "/", "systemd"},
		{"hybrid v2", mountsHybrid, "4:memory:/m\n1:name=systemd:/s\n0::/u\n", "/u",
			"unified/u"},
		{"hybrid v2 root", mountsHybrid, "4:memory:/m\n1:name=systemd:/\n0::/\n", "/m",
			"mem ory/m"},
		{"hybrid all root", mountsHybrid, "4:memory:/\n1:name=systemd:/\n0::/\n", "/",
			"unified"},
		{"hybrid container", mountsHybrid, "4:memory:/docker/" + hexID +
			"\n1:name=systemd:/docker/" + hexID +
			"\n0::/system.slice/containerd.service\n",
			"/docker/" + hexID, "systemd/docker/" + hexID},
		{"hybrid container in v2 too", mountsHybrid,
			"1:name=systemd:/system.slice/docker-" + hexID +
				".scope\n0::/system.slice/docker-" + hexID + ".scope\n",
			"/system.slice/docker-" + hexID + ".scope", "unified/system.slice/docker-" +
				hexID + ".scope"},
		{"v1 container, systemd elsewhere", mountsV1, "4:memory:/kubepods/pod" + uid + "/" +
			hexID + "\n1:name=systemd:/system.slice/crio.service\n",
			"/kubepods/pod" + uid + "/" + hexID, "mem ory/kubepods/pod" + uid + "/" +
				hexID},
		{"host tree bound in", mountsHostBind, "0::/../../../kubepods/pod1\n",
			"/kubepods/pod1", "host/kubepods/pod1"},
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
			mounts := ParseMounts([]byte(strings.ReplaceAll(c.mounts, "%D", root)))
			want := &event.Cgroup{Path: c.path}
			if c.dir != "" {
				dir := filepath.Join(root, c.dir)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				want.ID = InodeOf(dir)
			}
			if c.path == "" {
				want = nil
			}
			if diff := cmp.Diff(want,
				mounts.Choose(ParseMemberships([]byte(c.cgroup)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

const mountsHybrid = mountsV1 + "36 31 0:36 / %D/unified rw - cgroup2 cgroup2 rw\n"

const mountsV2 = "29 23 0:26 / %D/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

const mountsV1 = "31 23 0:28 / %D rw - tmpfs tmpfs rw\n" +
	"32 31 0:30 / %D/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
	"33 31 0:33 / %D/mem\\040ory rw - cgroup cgroup rw,memory\n" +
	"34 31 0:34 / %D/pids rw - cgroup cgroup rw,pids\n" +
	"35 31 0:35 / %D/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"

// The mounts of the common set-ups; %D is a directory of the test.
const (

	// In a container with its own cgroup namespace and the host's tree bound in.
	mountsHostBind = "50 49 0:26 /../../.. %D/host ro - cgroup2 cgroup2 rw\n"
	mountsOwnOnly  = "50 49 0:26 / %D/cg ro - cgroup2 cgroup2 rw\n"
	mountsSub      = "50 49 0:26 /a/b %D/sub ro - cgroup2 cgroup2 rw\n"
)
