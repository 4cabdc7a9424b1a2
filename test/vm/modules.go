// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// bootModules are inserted before the guest takes commands: the channel those
// come through, what the lab builds its network from, and netfilter, which tells
// "not there" from "not loaded" poorly.
var bootModules = []string{"virtio_pci", "virtio_console", "tun", "veth", "nf_tables"}

// demandModules are shipped for the kernel to load itself, through /sbin/modprobe,
// when somebody makes a qdisc, a rule or a socket of that kind. Inserting them all
// at boot would cost seconds under emulation.
var demandModules = []string{
	"virtio_rng", "nf_*", "nft_*", "nfnetlink*", "nf_tables", "xt_*", "x_tables", "ip_tables",
	"ip6_tables", "iptable_*", "ip6table_*",
	"ipt_*", "ip6t_*", "xfrm_*", "sch_*", "cls_*", "act_*", "em_*", "ifb", "dummy", "bridge",
	"br_netfilter", "vrf", "tcp_*",
	"crc32c*", // which libcrc32c, and so nf_tables, asks for by alias when it is not built in
	"inet_diag", "unix_diag", "af_packet", "af_packet_diag", "tls",
}

// moduleTree is the modules of one kernel. Debian ships no modules.dep (depmod
// makes it at installation), so dependencies are read from the modules themselves.
type moduleTree struct {
	dir     string
	files   map[string]string // module name: path below dir
	builtin map[string]bool
}

// moduleInfo is the part of a module's .modinfo section that loading it takes.
type moduleInfo struct {
	depends, aliases []string
}

var errNoModule = errors.New("no such module")

// moduleName gives the name the kernel uses for a module's file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func openModules(dir string) (*moduleTree, error) {
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("read built-in modules: %w", err)
	}
	tree := &moduleTree{dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	for line := range strings.Lines(string(builtin)) {
		tree.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	err = fs.WalkDir(os.DirFS(dir), ".", func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(file, ".ko") {
			tree.files[moduleName(file)] = file
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	return tree, nil
}

// match gives the names of the modules that patterns match. A module that is
// missing is no error: no two kernels have the same ones.
func (t *moduleTree) match(patterns []string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.files)) {
		if slices.ContainsFunc(patterns, func(p string) bool {
			ok, _ := path.Match(p, name)
			return ok
		}) {
			names = append(names, name)
		}
	}
	return names
}

// info reads what a module says about itself.
func (t *moduleTree) info(name string) (moduleInfo, error) {
	file, ok := t.files[name]
	if !ok {
		return moduleInfo{}, fmt.Errorf("find module %s: %w", name, errNoModule)
	}
	object, err := elf.Open(filepath.Join(t.dir, file))
	if err != nil {
		return moduleInfo{}, fmt.Errorf("open module %s: %w", name, err)
	}
	defer object.Close()
	section := object.Section(".modinfo")
	if section == nil {
		return moduleInfo{}, fmt.Errorf("read module %s: no .modinfo section", name)
	}
	data, err := section.Data()
	if err != nil {
		return moduleInfo{}, fmt.Errorf("read module %s: %w", name, err)
	}
	return parseModinfo(data), nil
}

// parseModinfo reads NUL-separated key=value pairs.
func parseModinfo(data []byte) moduleInfo {
	var info moduleInfo
	for pair := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(pair), "=")
		switch {
		case value == "":
		case key == "alias":
			info.aliases = append(info.aliases, value)
		case key == "depends":
			for name := range strings.SplitSeq(value, ",") {
				info.depends = append(info.depends, moduleName(name))
			}
		}
	}
	return info
}

// loadOrder puts modules behind all they depend on, each once. Built-in ones are
// there already.
func loadOrder(names []string, builtin map[string]bool, info func(string) (moduleInfo, error),
) ([]string, error) {
	const visiting, done = 1, 2
	var order []string
	state := map[string]int{}
	var visit func(string) error
	visit = func(name string) error {
		switch {
		case builtin[name], state[name] == done:
			return nil
		case state[name] == visiting:
			return fmt.Errorf("order modules: %s depends on itself", name)
		}
		state[name] = visiting
		mod, err := info(name)
		if err != nil {
			return err
		}
		for _, dep := range mod.depends {
			if err := visit(dep); err != nil {
				return fmt.Errorf("order modules for %s: %w", name, err)
			}
		}
		state[name] = done
		order = append(order, name)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// addModules puts modules into the root file system: those to insert at boot, in
// order, and those modprobe is to find.
func (t *moduleTree) addModules(root *rootfs, release string, boot []string) error {
	guestDir := "/usr/lib/modules/" + release + "/"
	infos := map[string]moduleInfo{}
	info := func(name string) (moduleInfo, error) {
		if known, ok := infos[name]; ok {
			return known, nil
		}
		got, err := t.info(name)
		infos[name] = got
		return got, err
	}
	bootOrder, err := loadOrder(boot, t.builtin, info)
	if err != nil {
		return err
	}
	all, err := loadOrder(append(slices.Clone(bootOrder), t.match(demandModules)...), t.builtin,
		info)
	if err != nil {
		return err
	}
	var insert, deps, aliases strings.Builder
	for _, name := range bootOrder {
		fmt.Fprintln(&insert, guestDir+t.files[name])
	}
	for _, name := range all {
		if err := root.copyFile(filepath.Join(t.dir, t.files[name]),
			guestDir+t.files[name]); err != nil {
			return err
		}
		chain, err := loadOrder([]string{name}, t.builtin, info)
		if err != nil {
			return err
		}
		// In modules.dep what is needed first comes last.
		chain = chain[:len(chain)-1]
		slices.Reverse(chain)
		fmt.Fprintf(&deps, "%s:", t.files[name])
		for _, dep := range chain {
			fmt.Fprintf(&deps, " %s", t.files[dep])
		}
		fmt.Fprintln(&deps)
		for _, alias := range infos[name].aliases {
			fmt.Fprintf(&aliases, "alias %s %s\n", alias, name)
		}
	}
	root.addText(guestDir+"modules.dep", deps.String())
	root.addText(guestDir+"modules.alias", aliases.String())
	root.addText(guestDir+"modules.symbols", "")
	root.addText(guestModuleList, insert.String())
	return root.copyFile(filepath.Join(t.dir, "modules.builtin"), guestDir+"modules.builtin")
}

// decompressModules decompresses every module below dir in place, once, so that
// each later boot need not.
func decompressModules(ctx context.Context, dir string) error {
	commands := map[string][]string{
		".ko.xz":  {"xz", "--decompress", "--force"},
		".ko.zst": {"zstd", "--decompress", "--force", "--rm", "--quiet"},
	}
	for suffix, command := range commands {
		var files []string
		err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(file, suffix) {
				files = append(files, file)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("list compressed modules: %w", err)
		}
		if len(files) == 0 {
			continue
		}
		tool, err := findTool(command[0])
		if err != nil {
			return err
		}
		for batch := range slices.Chunk(files, 500) { // well below the limit on arguments
			cmd := exec.CommandContext(ctx, tool,
				append(slices.Clone(command[1:]), batch...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("decompress modules: %w: %s", err,
					bytes.TrimSpace(out))
			}
		}
	}
	return nil
}
