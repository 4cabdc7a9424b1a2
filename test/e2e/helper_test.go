// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

const helperReady = "ready"

// helperConfig says what a helper process is.
type helperConfig struct {
	Comm string

	// Ports to listen on, at 0.0.0.0: [First, First+Count).
	First, Count int
	Backlog      int

	Spin bool // keep a thread busy

	// Inherited is how many listeners it was given as files 3 and up.
	Inherited int
	// Workers are processes that get all its listeners: prefork.
	Workers int
	// Accept is how many connections the first worker accepts and keeps open. Then it
	// starts a process that inherits them and the listeners.
	Accept int
	// Accepts is the same, said to that worker.
	Accepts int

	// Serve makes it a server as one meets them: see serveAs.
	Serve string
}

// helper is a running helper process.
type helper struct {
	pid     int
	comm    string
	workers []int
}

// startHelper starts a helper in the world's namespace, and returns when it has
// done what its config says. It ends with the test.
func startHelper(t *testing.T, w *world.World, config helperConfig) helper {
	t.Helper()
	cmd := helperCommand(config)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, w.Do(cmd.Start)) // a child has the namespace of the thread that makes it
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h := helper{pid: cmd.Process.Pid, comm: config.Comm}
	h.workers, err = awaitHelper(stdout)
	must(t, err)
	return h
}

func helperCommand(config helperConfig) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"synspy-e2e-helper"}
	cmd.Env = append(os.Environ(), helperSetting(config))
	return cmd
}

// helperSetting is the environment variable that makes this executable a helper.
func helperSetting(config helperConfig) string {
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return helperEnv + "=" + string(text)
}

// awaitHelper reads a line per worker, then the word that all is done.
func awaitHelper(r io.Reader) (workers []int, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var pid int
		if lines.Text() == helperReady {
			return workers, nil
		}
		if _, err := fmt.Sscanf(lines.Text(), "worker %d", &pid); err != nil {
			break
		}
		workers = append(workers, pid)
	}
	return nil, fmt.Errorf("helper said %q: %w", lines.Text(), lines.Err())
}

// runHelper is what a helper does before it waits for its end.
func runHelper(text string) error {
	var config helperConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	if config.Comm != "" {
		if err := os.WriteFile("/proc/self/comm", []byte(config.Comm), 0); err != nil {
			return err
		}
	}
	if config.Serve != "" {
		return serveAs(config)
	}
	if config.Count > 500 {
		limit := unix.Rlimit{Cur: uint64(config.Count + 100),
			Max: uint64(config.Count + 100)}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return fmt.Errorf("raise the limit of open files: %w", err)
		}
	}
	var files []*os.File
	for i := range config.Count {
		fd, err := listen(config.First+i, config.Backlog)
		if err != nil {
			return fmt.Errorf("listen on port %d: %w", config.First+i, err)
		}
		if config.Workers > 0 {
			files = append(files, os.NewFile(uintptr(fd), "listener"))
		}
	}
	if config.Spin {
		go func() {
			for i := uint64(1); i != 0; i += 2 { // which it never is
				runtime.KeepAlive(i)
			}
		}()
	}
	for i := range config.Workers {
		accepts := 0
		if i == 0 {
			accepts = config.Accept
		}
		if err := startWorker(fmt.Sprintf("%s-%d", config.Comm, i), files,
			accepts); err != nil {
			return err
		}
	}
	if config.Accepts > 0 {
		go func() {
			if err := acceptSome(config); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}()
	}
	return nil
}

// firstFile is the number of the first file that a process was given.
const firstFile = 3

// acceptSome accepts from the first listener that it was given, asks once more in
// vain, and hands everything on.
func acceptSome(config helperConfig) error {
	files := []*os.File{os.NewFile(firstFile, "listener")}
	for range config.Accepts {
		fd, _, err := unix.Accept4(firstFile, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "connection"))
	}
	if err := unix.SetNonblock(firstFile, true); err != nil {
		return err
	}
	if _, _, err := unix.Accept4(firstFile, unix.SOCK_CLOEXEC); !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("accept from an empty queue: %w", err)
	}
	return startWorker(config.Comm+"-heir", files, 0)
}

func listen(port, backlog int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// What is accepted or queued dies with an RST at the end, not with FINs
	// that keep the namespace alive.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER,
		&unix.Linger{Onoff: 1}); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, backlog)
}

// startWorker starts a process that has the listeners open, as the workers of a
// preforking server have. It ends when the helper's own end closes its input.
func startWorker(comm string, files []*os.File, accepts int) error {
	cmd := helperCommand(helperConfig{Comm: comm, Inherited: len(files), Accepts: accepts})
	cmd.ExtraFiles = files
	if _, err := cmd.StdinPipe(); err != nil { // stays open as long as we live
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := awaitHelper(stdout); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "worker", cmd.Process.Pid)
	go io.Copy(io.Discard, stdout) //nolint:errcheck // a worker of its own may be told of
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// without reports whether a tool is declared to be missing. One that is missing
// without having been declared is a failure.
func without(tool string) bool {
	for name := range strings.SplitSeq(os.Getenv("SYNSPY_E2E_WITHOUT"), ",") {
		if name == tool {
			return true
		}
	}
	return false
}
