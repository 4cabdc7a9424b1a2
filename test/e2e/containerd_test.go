// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// containerdConfig is all private: no other containerd is touched, and no network
// is set up. %[1]s is its directory.
const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "%[1]s/cri.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + imageName + `"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cni"
    conf_dir = "%[1]s/cni"
`

// containerd is a running containerd of Debian's, with the test's image in it.
type containerd struct {
	t       testing.TB
	w       *world.World
	dir     string
	socket  string
	cmd     *exec.Cmd
	log     bytes.Buffer
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	cgroup  string // parent of its pods' cgroups
	pods    []*sandbox
}

// sandbox is a pod of it, whose network is the World's.
type sandbox struct {
	of     *containerd
	id     string
	config *cri.PodSandboxConfig
}

// startContainerd starts one in the World's namespace: pods that ask for the
// "node's" network get that.
func startContainerd(t testing.TB, w *world.World) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "synspy-ctd-") // short: it has sockets in it
	must(t, err)
	c := &containerd{t: t, w: w, dir: dir, socket: dir + "/cri.sock",
		cgroup: fmt.Sprintf("/synspy-e2e-%d-ctd", os.Getpid())}
	t.Cleanup(c.close)
	must(t, os.WriteFile(dir+"/config.toml", fmt.Appendf(nil, containerdConfig, dir), 0o600))
	c.start()
	c.conn, err = grpc.NewClient("unix://"+c.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	c.runtime = cri.NewRuntimeServiceClient(c.conn)
	writeImage(t, dir+"/image.tar")
	c.await("containerd", func(ctx context.Context) error {
		_, err := c.runtime.Version(ctx, &cri.VersionRequest{})
		return err
	})
	out, err := exec.CommandContext(c.context(), "ctr", "--address", c.socket, "--namespace",
		"k8s.io", "images", "import",
		"--snapshotter", "native", dir+"/image.tar").CombinedOutput()
	if err != nil {
		c.fatal("import the image: %v\n%s", err, out)
	}
	c.await("the image", func(ctx context.Context) error { // CRI learns of it by an event
		r, err := cri.NewImageServiceClient(c.conn).ImageStatus(ctx,
			&cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: imageName}})
		if err == nil && r.Image == nil {
			err = errors.New("not there")
		}
		return err
	})
	return c
}

func (c *containerd) start() {
	c.t.Helper()
	c.cmd = exec.Command("containerd", "--config", c.dir+"/config.toml", "--log-level", "warn")
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	must(c.t, c.w.Do(c.cmd.Start))
}

// signal stops it, lets it go on, or ends it.
func (c *containerd) signal(s unix.Signal) { must(c.t, c.cmd.Process.Signal(s)) }

// end ends it; its containers run on.
func (c *containerd) end() {
	c.t.Helper()
	if c.cmd.ProcessState != nil {
		return
	}
	c.signal(unix.SIGKILL)
	_ = c.cmd.Wait() // reports the kill
}

func (c *containerd) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *containerd) fatal(format string, args ...any) {
	c.t.Helper()
	c.end()
	c.t.Fatalf(format+"\ncontainerd said:\n%s", append(args, &c.log)...)
}

// await tries until it works.
func (c *containerd) await(what string, try func(context.Context) error) {
	c.t.Helper()
	ctx := c.context()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			c.fatal("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// pod makes a pod without containers.
func (c *containerd) pod(namespace, name, uid string) *sandbox {
	c.t.Helper()
	p := &sandbox{of: c, config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Namespace: namespace, Name: name, Uid: uid},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: c.cgroup + "/kubepods/burstable/pod" + uid,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{
					Network: cri.NamespaceMode_NODE}},
		},
	}}
	r, err := c.runtime.RunPodSandbox(c.context(), &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		c.fatal("run a pod sandbox: %v", err)
	}
	p.id = r.PodSandboxId
	c.pods = append(c.pods, p)
	return p
}

// run starts a container in the pod and returns its ID and PID.
func (p *sandbox) run(name string, server *server.Config) string {
	c := p.of
	c.t.Helper()
	config := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: imageName},
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}},
	}
	if server != nil {
		config.Command = []string{"/bin/synspy"}
		config.Envs = []*cri.KeyValue{
			{Key: "SYNSPY_LAB_HELPER", Value: asJSON(c.t, server)}}
		config.Stdin = true // it ends with its input
	}
	r, err := c.runtime.CreateContainer(c.context(),
		&cri.CreateContainerRequest{PodSandboxId: p.id, Config: config,
			SandboxConfig: p.config})
	if err != nil {
		c.fatal("create container %s: %v", name, err)
	}
	if _, err := c.runtime.StartContainer(c.context(),
		&cri.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		c.fatal("start container %s: %v", name, err)
	}
	return r.ContainerId
}

// close removes the pods and all that is left of it.
func (c *containerd) close() {
	if c.conn != nil {
		c.end()
		if len(c.pods) > 0 {
			c.start()
		}
		for _, p := range c.pods {
			c.await("remove a pod", func(ctx context.Context) error {
				_, err := c.runtime.StopPodSandbox(ctx,
					&cri.StopPodSandboxRequest{PodSandboxId: p.id})
				if err == nil {
					_, err = c.runtime.RemovePodSandbox(ctx,
						&cri.RemovePodSandboxRequest{PodSandboxId: p.id})
				}
				return err
			})
		}
		c.conn.Close()
	}
	c.end()
	c.unmount()
	must(c.t, os.RemoveAll(c.dir))
	c.removeCgroups()
}

// unmount frees what is still mounted below its directory, if a pod failed.
func (c *containerd) unmount() {
	text, err := os.ReadFile("/proc/self/mounts")
	must(c.t, err)
	lines := slices.Collect(strings.Lines(string(text)))
	slices.Reverse(lines)
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], c.dir+"/") {
			_ = unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
}

// removeCgroups removes what its pods leave in each hierarchy.
func (c *containerd) removeCgroups() {
	text, err := os.ReadFile("/proc/self/mounts")
	must(c.t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		var dirs []string
		_ = filepath.WalkDir(f[1]+c.cgroup,
			func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
		slices.Reverse(dirs) // the lower ones first
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil {
				c.t.Error(err)
			}
		}
	}
}
