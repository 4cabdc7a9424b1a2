// SPDX-License-Identifier: Apache-2.0

package requests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
)

// nginxConfig has two workers share one listener and close each connection.
const nginxConfig = `daemon off;
worker_processes 2;
user root;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_timeout 0;
	server {
		listen 127.0.0.1:%[2]d backlog=4096;
		location / { return 200 "ok\n"; }
	}
}
`

// RunServe is a server that closes each connection. It ends with the context.
func RunServe(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bench serve ADDRESS")
	}
	server := http.Server{Addr: args[0], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})}
	server.SetKeepAlivesEnabled(false)
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// requestServer is a server that runs.
type requestServer struct {
	cmd *exec.Cmd
	dir string
}

// startServer starts a server in the world's namespace, and waits until it answers.
func startServer(ctx context.Context, world *world.World, name string, port int) (*requestServer, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.CommandContext(ctx, self, "serve", fmt.Sprintf("127.0.0.1:%d", port))
	if name == serverNginx {
		config := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, port), 0o644); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		cmd = exec.CommandContext(ctx, "nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", config)
	}
	cmd.Stderr = os.Stderr
	if err := world.Do(cmd.Start); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), os.RemoveAll(dir))
	}
	server := &requestServer{cmd, dir}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := traffic.Within(world, func() error { return ask(port) })
		if err == nil {
			return server, nil
		}
		if time.Since(begin) > serverTimeout {
			return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), server.stop())
		}
	}
}

func (s *requestServer) stop() error {
	err := s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait() // however it ended
	return errors.Join(err, os.RemoveAll(s.dir))
}

// cpuTime is what the server and its workers have used, in ticks of USER_HZ.
func (s *requestServer) cpuTime() int {
	pid := s.cmd.Process.Pid
	total := tracer.CPUTime(pid)
	workers, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, worker := range strings.Fields(string(workers)) {
		if n, err := strconv.Atoi(worker); err == nil {
			total += tracer.CPUTime(n)
		}
	}
	return total
}

// serverTimeout is how long a server may take to answer.
const serverTimeout = 10 * time.Second

const request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// ask makes one request on a connection of its own and reads its answer to the end.
func ask(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(serverTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("limit wait for answer: %w", err)
	}
	if err := unix.Connect(fd, traffic.Loopback(port)); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte(request)); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	var text []byte
	for buf := make([]byte, 1024); ; {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if n == 0 {
			break
		}
		text = append(text, buf[:n]...)
	}
	if !bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %q", text)
	}
	return nil
}
