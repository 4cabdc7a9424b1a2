// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/kernel/cgroup"
)

// frozenOf names the cgroup that keeps the process's threads from running, the highest that
// somebody froze, with all below it, and the file that was written to for it. They are empty for
// none, and where no mount shows the hierarchy.
func (s *Sampler) frozenOf(groups []cgroup.Membership) (path, file string) {
	for _, m := range groups {
		isV2 := m.Controllers[0] == cgroup.V2
		if m.Deleted || !isV2 && !slices.Contains(m.Controllers, "freezer") {
			continue
		}
		path, at := s.proc.Mounts.Locate(m)
		if at == "" || !frozen(at, isV2) {
			continue
		}
		for range maxLevels {
			if path == "/" || !frozen(filepath.Dir(at), isV2) {
				break
			}
			path, at = filepath.Dir(path), filepath.Dir(at)
		}
		file = "freezer.state"
		if isV2 {
			file = "cgroup.freeze"
		}
		return path, filepath.Join(at, file)
	}
	return "", ""
}

// frozen reports whether all threads in a cgroup are frozen; the root of a hierarchy cannot be.
func frozen(dir string, isV2 bool) bool {
	if !isV2 {
		return readText(dir, "freezer.state") == "FROZEN"
	}
	return slices.Contains(strings.Split(readText(dir, "cgroup.events"), "\n"), "frozen 1")
}
