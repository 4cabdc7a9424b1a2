// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// store is the cache of unpacked packages, outside the tree:
//
//	kernels/<name>/manifest.json    what is there
//	kernels/<name>/<version>/       the packages, unpacked over each other
type store struct {
	dir  string
	down *downloader
	log  *slog.Logger
}

// unpacked describes packages in the cache; it is their manifest.
type unpacked struct {
	Version string `json:"version"` // of the root package
	// IndexSHA256 is the index the version was resolved from: while the suite
	// still has the same one, there is nothing to resolve.
	IndexSHA256 string `json:"index_sha256"`
	Dir         string `json:"dir"`
	Release     string `json:"release,omitempty"` // uname -r
	Vmlinuz     string `json:"vmlinuz,omitempty"`
	Modules     string `json:"modules,omitempty"` // the directory with modules.builtin
}

func newStore(log *slog.Logger) (*store, error) {
	cache, err := os.UserCacheDir() // honours XDG_CACHE_HOME
	if err != nil {
		return nil, fmt.Errorf("find cache directory: %w", err)
	}
	dir := filepath.Join(cache, "synspy")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	return &store{dir: dir, down: newDownloader(log), log: log}, nil
}

// kernel gives the newest kernel of a row of the table, from the mirror or, when
// that does not answer, from the cache.
func (s *store) kernel(ctx context.Context, k kernel) (*unpacked, error) {
	got, err := s.packages(ctx, filepath.Join("kernels", k.name), k, k.metapackage())
	if err != nil {
		return nil, fmt.Errorf("get kernel %s: %w", k.name, err)
	}
	return got, nil
}

// baseSystem gives programs that run on arch. The host's will do for its own
// architecture; busybox for another comes from its package.
func (s *store) baseSystem(ctx context.Context, arch string) (baseSystem, error) {
	if arch == runtime.GOARCH { // Debian and Go agree on amd64 and arm64
		busybox, err := findTool("busybox")
		if err != nil {
			return baseSystem{}, err
		}
		shell, err := exec.LookPath("dash")
		if err != nil {
			s.log.Warn("no dash on this machine: the guest's shell prefers busybox applets to other programs")
		}
		return baseSystem{busybox: busybox, shell: shell}, nil
	}
	from := kernel{name: "busybox-" + arch, arch: arch, suite: "stable"}
	got, err := s.packages(ctx, from.name, from, "busybox-static")
	if err != nil {
		return baseSystem{}, fmt.Errorf("get busybox for %s: %w", arch, err)
	}
	for _, path := range []string{"usr/bin/busybox", "bin/busybox"} {
		if _, err := os.Stat(filepath.Join(got.Dir, path)); err == nil {
			return baseSystem{busybox: filepath.Join(got.Dir, path)}, nil
		}
	}
	return baseSystem{}, fmt.Errorf("find busybox in %s: %w", got.Dir, fs.ErrNotExist)
}

// packages brings the root package, and the kernel packages it stands for, into
// the cache at dir, relative to the store.
func (s *store) packages(ctx context.Context, dir string, k kernel, root string,
) (*unpacked, error) {
	dir = filepath.Join(s.dir, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	cached := readManifest(dir)
	got, err := s.refresh(ctx, dir, k, root, cached)
	if err != nil && cached != nil && errors.Is(err, errMirror) && ctx.Err() == nil {
		s.log.Warn("using the cached packages", "name", k.name, "version", cached.Version,
			"reason", err)
		return cached, nil
	}
	return got, err
}

func (s *store) refresh(ctx context.Context, dir string, k kernel, root string, cached *unpacked,
) (*unpacked, error) {
	base, err := mirrorURL(ctx, k.archive)
	if err != nil {
		return nil, err
	}
	release, err := s.down.release(ctx, base, k.suite, dir)
	if err != nil {
		return nil, err
	}
	indexPath := "main/binary-" + k.arch + "/Packages.xz"
	sum, err := releaseSum(release, indexPath)
	if err != nil {
		return nil, err
	}
	if cached != nil && cached.IndexSHA256 == sum {
		return cached, nil
	}
	index, err := s.index(ctx, dir, base+"dists/"+k.suite+"/"+indexPath, sum)
	if err != nil {
		return nil, err
	}
	compare, err := compareVersions(ctx)
	if err != nil {
		return nil, err
	}
	isKernel := root == k.metapackage()
	var newest debPackage
	if isKernel && k.series != "" {
		newest, err = index.image(k, compare)
	} else {
		newest, err = index.newest(root, compare)
	}
	if err != nil {
		return nil, err
	}
	if cached != nil && cached.Version == newest.version {
		cached.IndexSHA256 = sum
		return cached, writeManifest(dir, cached)
	}
	all, err := index.kernelPackages(newest)
	if err != nil {
		return nil, err
	}
	if isKernel && k.series == "" {
		all = all[1:] // a metapackage has nothing in it
	}
	got, err := s.unpack(ctx, base, filepath.Join(dir, newest.version), all)
	if err != nil {
		return nil, err
	}
	if isKernel {
		if err := got.findKernel(); err != nil {
			return nil, err
		}
	}
	got.Version, got.IndexSHA256 = newest.version, sum
	if err := writeManifest(dir, got); err != nil {
		return nil, err
	}
	if cached != nil {
		os.RemoveAll(cached.Dir)
	}
	return got, nil
}

// index downloads a suite's package index and reads it. The manifest remembers its
// checksum, so it need not stay. Of the forms an index comes in, every suite has
// this one.
func (s *store) index(ctx context.Context, dir, url, sum string) (packageIndex, error) {
	xz, err := findTool("xz")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "Packages.xz")
	s.log.Info("downloading package index", "url", url)
	if err := s.down.get(ctx, url, path, sum); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	plain, err := exec.CommandContext(ctx, xz, "--decompress", "--stdout", path).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress package index: %w", err)
	}
	return parsePackages(bytes.NewReader(plain), func(name string) bool {
		return strings.HasPrefix(name, "linux-") || name == "busybox-static"
	})
}

// unpack downloads packages and unpacks them over each other. The directory
// appears only when it is complete.
func (s *store) unpack(ctx context.Context, base, dir string, all []debPackage) (*unpacked, error) {
	dpkgDeb, err := findTool("dpkg-deb")
	if err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-*")
	if err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	defer os.RemoveAll(temp)
	for _, p := range all {
		s.log.Info("downloading package", "package", p.name, "version", p.version)
		deb := filepath.Join(temp, "package.deb")
		if err := s.down.get(ctx, base+p.filename, deb, p.sha256); err != nil {
			return nil, err
		}
		if out, err := exec.CommandContext(ctx, dpkgDeb, "-x", deb,
			filepath.Join(temp, "root")).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("unpack %s: %w: %s", p.name, err,
				bytes.TrimSpace(out))
		}
	}
	if err := decompressModules(ctx, filepath.Join(temp, "root")); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear cache directory: %w", err)
	}
	if err := os.Rename(filepath.Join(temp, "root"), dir); err != nil {
		return nil, fmt.Errorf("move unpacked packages: %w", err)
	}
	return &unpacked{Dir: dir}, nil
}

// findKernel locates the kernel image and its modules: /boot and /lib/modules in
// older suites, both under /usr/lib/modules in newer ones.
func (u *unpacked) findKernel() error {
	var images, modules []string
	for _, pattern := range []string{"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"} {
		found, _ := filepath.Glob(filepath.Join(u.Dir, pattern)) // only a bad pattern is an error
		images = append(images, found...)
	}
	for _, pattern := range []string{"lib/modules/*/modules.builtin",
		"usr/lib/modules/*/modules.builtin"} {
		found, _ := filepath.Glob(filepath.Join(u.Dir, pattern))
		modules = append(modules, found...)
	}
	if len(images) != 1 || len(modules) != 1 {
		return fmt.Errorf("find kernel in %s: want one vmlinuz and one modules.builtin, got %d and %d", u.Dir, len(images), len(modules))
	}
	u.Vmlinuz = images[0]
	u.Modules = filepath.Dir(modules[0])
	u.Release = filepath.Base(u.Modules)
	return nil
}

// readManifest gives what the cache holds, nil when that is nothing usable.
func readManifest(dir string) *unpacked {
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return nil
	}
	var u unpacked
	if json.Unmarshal(text, &u) != nil {
		return nil
	}
	if _, err := os.Stat(u.Dir); err != nil {
		return nil
	}
	return &u
}

func writeManifest(dir string, u *unpacked) error {
	text, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	temp := filepath.Join(dir, ".manifest")
	if err := os.WriteFile(temp, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(dir, "manifest.json")); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// lock keeps two runs from filling the same place in the cache.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	return func() { file.Close() }, nil
}
