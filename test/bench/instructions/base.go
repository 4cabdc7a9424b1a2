// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/synspy/synspy/test/bench/command"
)

// runsInKernel are the paths that decide what runs in the kernel.
var runsInKernel = []string{"bpf", "internal", "cmd", "go.mod"}

// errNoBase says that there is no earlier commit, as in a shallow clone.
var errNoBase = errors.New("no earlier commit to compare with")

// buildBase builds synspy as it was at a commit. It gives no path where nothing has changed
// since that decides what packets pay.
func buildBase(ctx context.Context, commit, dir string, stderr io.Writer) (path string, err error) {
	if exec.CommandContext(ctx, "git", "rev-parse", "--verify", "--quiet", commit+"^{commit}").Run() != nil {
		return "", fmt.Errorf("%w: %s", errNoBase, commit)
	}
	same := append([]string{"diff", "--quiet", commit, "--"}, runsInKernel...)
	if exec.CommandContext(ctx, "git", same...).Run() == nil {
		return "", nil
	}
	tree, err := os.MkdirTemp("", "synspy-base-")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", commit, err)
	}
	defer os.RemoveAll(tree)
	if err := command.Run(ctx, stderr, "git", "worktree", "add", "--detach", "--force", tree, commit); err != nil {
		return "", fmt.Errorf("check out %s: %w", commit, err)
	}
	defer func() {
		err = errors.Join(err, command.Run(ctx, stderr, "git", "worktree", "remove", "--force", tree))
	}()
	if path, err = filepath.Abs(filepath.Join(dir, "synspy-base")); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/synspy")
	build.Dir, build.Stdout, build.Stderr = tree, stderr, stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", commit, err)
	}
	return path, nil
}
