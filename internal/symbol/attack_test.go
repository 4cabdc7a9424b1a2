// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// attacker is an unprivileged user, and attacked what he may not read.
var attacker = &syscall.Credential{Uid: 65534, Gid: 65534}

const attackEnv = "SYNSPY_SYMBOL_ATTACK"

// TestAttacker is no test, but the attacker's process: it puts something in the place of its perf
// map, says that it has, and waits.
func TestAttacker(t *testing.T) {
	how, secret, _ := strings.Cut(os.Getenv(attackEnv), " ")
	if how == "" {
		return
	}
	path := fmt.Sprintf("/tmp/perf-%d.map", os.Getpid())
	var err error
	switch how {
	case "symlink":
		err = os.Symlink(secret, path)
	case "fifo":
		err = unix.Mkfifo(path, 0o666)
	case "own":
		err = os.WriteFile(path, []byte("1000 100 own\n"), 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = os.Remove(path)
}

// attack runs him, in a directory of the test's own as his /tmp.
func attack(t *testing.T, how, secret string, as *syscall.Credential) (pid uint32) {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "attacker") // where he may run it
	if err := os.Link("/proc/self/exe", exe); err != nil {
		text, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(exe, text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir := filepath.Dir(exe); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, "-test.run=^TestAttacker$")
	cmd.Env = []string{attackEnv + "=" + how + " " + secret}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		_ = cmd.Wait()
	})
	said := make([]byte, 64)
	n, _ := output.Read(said)
	if got := string(said[:n]); got != "ready\n" {
		t.Fatalf("the attacker: %q", got)
	}
	return uint32(cmd.Process.Pid)
}

// perfMapOf opens what a process shows as its perf map.
func perfMapOf(t *testing.T, pid uint32) (*os.File, error) {
	t.Helper()
	p, err := openProcess("/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	return within(context.Background(), func(context.Context) (*os.File, error) {
		return openPerfMap(p.dir, p.root)
	})
}

// TestPerfMapOfAttacker puts something else in the place of a perf map: synspy, which may read
// anything, must not read that.
func TestPerfMapOfAttacker(t *testing.T) {
	secret := filepath.Join("/tmp", fmt.Sprintf("synspy-secret-%d", os.Getpid())) // on the same file system
	if err := os.WriteFile(secret, []byte("1000 100 secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	for _, tt := range []struct {
		name, how, to string
		as            *syscall.Credential
		put           func(t *testing.T, path string) error // root's part, where there must be one for the attack to come so far
		opens         bool
	}{
		{name: "his own", how: "own", as: attacker, opens: true},
		{name: "root's own", how: "own", opens: true},
		{name: "a link to what only root may read", how: "symlink", to: secret,
			as: attacker},
		{name: "a link to his own", how: "symlink", to: "/proc/self/status", as: attacker},
		{name: "a link to the kernel's log", how: "symlink", to: "/proc/kmsg",
			as: attacker},
		{name: "root's process, and a link", how: "symlink", to: secret},
		{name: "a pipe that nobody writes", how: "fifo", as: attacker},
		{name: "a second name of root's file", how: "nothing", as: attacker,
			put: func(_ *testing.T,
				path string) error {
				return os.Link(secret, path)
			}},
		{name: "a second name of his own", how: "nothing", as: attacker,
			put: func(t *testing.T, path string) error {
				other := path + ".other"
				if err := os.WriteFile(other, []byte("1000 100 x\n"), 0o644); err != nil {
					return err
				}
				t.Cleanup(func() { _ = os.Remove(other) })
				if err := os.Chown(other, int(attacker.Uid),
					int(attacker.Gid)); err != nil {
					return err
				}
				return os.Link(other, path)
			}},
		{name: "root's file", how: "nothing", as: attacker,
			put: func(_ *testing.T, path string) error {
				return os.WriteFile(path,
					[]byte("1000 100 x\n"), 0o600)
			}},
		{name: "another user's file, for a process of root", how: "nothing",
			put: func(_ *testing.T, path string) error {
				if err := os.WriteFile(path, []byte("1000 100 x\n"), 0o600); err != nil {
					return err
				}
				return os.Chown(path, int(attacker.Uid), int(attacker.Gid))
			}},
		{name: "a file of the kernel's in its place", how: "nothing", as: attacker,
			put: func(t *testing.T, path string) error {
				if err := os.WriteFile(path, nil, 0o644); err != nil {
					return err
				}
				t.Cleanup(func() {
					if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
						t.Error(err)
					}
				})
				return unix.Mount("/proc/kmsg", path, "", unix.MS_BIND, "")
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pid := attack(t, tt.how, tt.to, tt.as)
			if tt.put != nil {
				path := fmt.Sprintf("/tmp/perf-%d.map", pid)
				t.Cleanup(func() {
					if err := os.Remove(path); err != nil {
						t.Error(err)
					}
				})
				if err := tt.put(t, path); err != nil {
					t.Fatal(err)
				}
			}
			file, err := perfMapOf(t, pid)
			if file != nil {
				file.Close()
			}
			if opened := err == nil; opened != tt.opens {
				t.Errorf("opened: %v (%v), want %v", opened, err, tt.opens)
			}
		})
	}
}

// TestPlainFileIsNotTheKernels looks at files whose reading has effects.
func TestPlainFileIsNotTheKernels(t *testing.T) {
	for _, path := range []string{"/proc/kmsg", "/proc/self/status",
		"/sys/kernel/uevent_seqnum", "/dev/null", "/proc/self/ns/net", "/tmp"} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plainFile(fd); err == nil {
			t.Errorf("%s is taken for a file that is kept", path)
		}
		unix.Close(fd)
	}
}

// TestFindMapped finds a mapped file by a name that goes through links, and no other file.
func TestFindMapped(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/lib", "outside"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	library := filepath.Join(root, "usr/lib/libc.so")
	if err := os.WriteFile(library, []byte("ELF"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"lib": "/usr/lib",
		"escape": "/../../../../../../etc/passwd", "other.so": "/usr/lib"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Stat(library, &st); err != nil {
		t.Fatal(err)
	}
	id := idOf(&st)
	for _, tt := range []struct {
		m    mapping
		want bool
	}{
		{mapping{path: "/lib/libc.so", device: id.device, inode: id.inode}, true}, // as where /lib is a link to /usr/lib
		{mapping{path: "/usr/lib/libc.so", device: id.device, inode: id.inode}, true},
		{mapping{path: "/usr/lib/libc.so", device: id.device, inode: id.inode + 1}, false},
		{mapping{path: "/usr/lib/libc.so", device: "ff:ff", inode: id.inode}, false},
		{mapping{path: "/escape", device: id.device, inode: id.inode}, false},
		{mapping{path: "/gone (deleted)", device: id.device, inode: id.inode}, false},
	} {
		fd, err := findMapped(dir, &tt.m)
		if err == nil {
			unix.Close(fd)
		}
		if found := err == nil; found != tt.want {
			t.Errorf("%+v: found: %v (%v)", tt.m, found, err)
		}
	}
}

// TestMapsDevice compares how a device is written with what the kernel writes.
func TestMapsDevice(t *testing.T) {
	p, err := openProcess("/proc", uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	mappings, err := p.readMaps(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		t.Fatal(err)
	}
	for _, m := range mappings {
		if m.path == exe && (fileID{m.device, m.inode}) != idOf(&st) {
			t.Errorf("%s is %s:%d in maps, and %+v by stat", exe, m.device, m.inode,
				idOf(&st))
		}
	}
}
