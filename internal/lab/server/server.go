// SPDX-License-Identifier: Apache-2.0

// Package server runs processes that listen in a world, and accept as well or as badly as they are
// told.
package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// helperEnv makes a re-executed binary a server; its value is a ServerConfig.
const helperEnv = "SYNSPY_LAB_HELPER"

// What a server says, and what it can be told, a line each.
const (
	helperReady  = "ready"
	helperClose  = "close"
	helperClosed = "closed"
)

// Config describes a server process.
type Config struct {
	// Comm becomes the process name, any bytes but NUL, 15 at most; empty
	// means "lab-server".
	Comm      []byte
	Listeners []ListenConfig
	Hogs      int // threads that do nothing but compute
	Sleepers  int // threads that do nothing but sleep

	Cgroup *os.File // of version 2, to run in; nil: the caller's
}

// ListenConfig describes one listener of a server.
type ListenConfig struct {
	Addr      netip.AddrPort
	Many      int // as many listeners, at this port and those after it; 0 is one
	Backlog   int // as given to listen(); the accept queue holds one more
	ReusePort bool
	MPTCP     bool
	Accept    bool          // call accept() in a loop, on a thread of its own
	Pause     time.Duration // and sleep in nanosleep() after each
	Busy      time.Duration // and compute for so long after each
	HangUp    bool          // accept and close at once, instead
	Poll      bool          // or wait in epoll first, and take all that there is
	Goroutine bool          // or accept as programs in Go do, with the Pause after each
	Workers   int           // or so many processes accept, with the Pause after each, beside a master that does not
	Files     uint64        // or accept until so many descriptors more are open, and try again after the Pause
	Options   []SocketOption
	Filter    []unix.SockFilter // classic BPF, as SO_ATTACH_FILTER takes it
}

// Server is a running server process: the listeners' owner is never the
// process that traces.
type Server struct {
	PID  int
	Comm string

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	once   sync.Once
	err    error
}

// Start runs this executable again as a server in the namespace, and
// returns when all its listeners listen. The World's Close ends it.
func Start(w *world.World, config Config) (*Server, error) {
	if len(config.Comm) == 0 {
		config.Comm = []byte("lab-server")
	}
	config.Comm = config.Comm[:min(len(config.Comm), 15)] // TASK_COMM_LEN
	text, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode server config: %w", err)
	}
	// Not os.Executable: the link still works when the file was replaced.
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"synspy-lab-server"}
	cmd.Env = append(os.Environ(), helperEnv+"="+string(text))
	// Pdeathsig fires when the *thread* that forked ends. Here that is the
	// namespace's own thread, which lives exactly as long as the World.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if config.Cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true,
			int(config.Cgroup.Fd())
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, stdin.Close())
	}
	// The child inherits the namespace of the thread that forks it.
	if err := w.Do(cmd.Start); err != nil {
		return nil, errors.Join(fmt.Errorf("start server: %w", err), stdin.Close(),
			stdout.Close())
	}
	s := &Server{PID: cmd.Process.Pid, Comm: string(config.Comm), cmd: cmd, stdin: stdin,
		stdout: bufio.NewReader(stdout)}
	if line, err := s.line(); line != helperReady {
		closeErr := s.Close() // ends it, so that stderr is complete
		return nil, fmt.Errorf("start server: it said %q: %w\n%s", line,
			errors.Join(err, closeErr), stderr.String())
	}
	w.Keep(s)
	return s, nil
}

// line reads what the process says next.
func (s *Server) line() (string, error) {
	line, err := s.stdout.ReadString('\n')
	return strings.TrimSpace(line), err
}

// CloseListeners makes the process close its listeners and go on running. They
// are closed when it returns: close() resets what is queued before it returns
// (inet_csk_listen_stop).
func (s *Server) CloseListeners() error {
	if _, err := fmt.Fprintln(s.stdin, helperClose); err != nil {
		return fmt.Errorf("tell server %d to close: %w", s.PID, err)
	}
	line, err := s.line()
	if err != nil {
		return fmt.Errorf("close listeners of server %d: %w", s.PID, err)
	}
	if line != helperClosed {
		return fmt.Errorf("close listeners of server %d: it said %q", s.PID, line)
	}
	return nil
}

// Close kills the process and waits for it. Its listeners close with it.
func (s *Server) Close() error {
	s.once.Do(func() {
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.err = fmt.Errorf("end server %d: %w", s.PID, err)
		}
		s.stdin.Close()
		_ = s.cmd.Wait() // reports the kill
	})
	return s.err
}

// HelperMain must be called first in main and TestMain. In an ordinary process
// it returns false at once. In a server process it serves, and does what it is
// told, until its standard input ends, then returns true: the caller should exit.
func HelperMain() bool {
	text, ok := os.LookupEnv(helperEnv)
	if !ok {
		return false
	}
	listeners, err := serve(text)
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return true
	}
	fmt.Fprintln(os.Stdout, helperReady)
	for told := bufio.NewScanner(os.Stdin); told.Scan(); { // ends with the parent, however that ends
		if told.Text() != helperClose {
			continue
		}
		for _, fd := range listeners {
			err = errors.Join(err, unix.Close(fd))
		}
		if listeners = nil; err != nil {
			fmt.Fprintln(os.Stdout, err)
			return true
		}
		fmt.Fprintln(os.Stdout, helperClosed)
	}
	return true
}

// serve opens the listeners and returns their descriptors.
func serve(text string) ([]int, error) {
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("decode server config: %w", err)
	}
	// Unlike PR_SET_NAME, which names the calling thread, this names the main
	// thread from whichever thread runs here (comm_write).
	if err := os.WriteFile("/proc/self/comm", config.Comm, 0); err != nil {
		return nil, fmt.Errorf("set process name: %w", err)
	}
	var listeners []int
	for _, l := range config.Listeners {
		if err := allowFiles(l.Many); err != nil {
			return nil, err
		}
		for i := range max(l.Many, 1) {
			one := l
			one.Addr = netip.AddrPortFrom(l.Addr.Addr(), l.Addr.Port()+uint16(i))
			fd, err := listen(one)
			if err != nil {
				return nil, fmt.Errorf("listen on %s: %w", one.Addr, err)
			}
			listeners = append(listeners, fd)
			if l.Accept {
				go acceptLoop(fd, l, config.Comm)
			}
			switch {
			case l.HangUp:
				go hangUpLoop(fd)
			case l.Poll:
				go pollLoop(fd)
			case l.Goroutine:
				go goroutineLoop(fd, l.Pause)
			case l.Workers > 0:
				// The listener is theirs alone.
				if err := errors.Join(prefork(fd, l.Workers, l.Pause),
					unix.Close(fd)); err != nil {
					return nil, err
				}
			case l.Files > 0:
				if err := leaveFiles(l.Files); err != nil {
					return nil, err
				}
				go tightLoop(fd, l.Pause)
			}
		}
	}
	for range config.Hogs {
		go hog()
	}
	for range config.Sleepers {
		go sleeper()
	}
	return listeners, nil
}

// allowFiles raises the limit of open files for that many listeners, if it must be.
func allowFiles(listeners int) error {
	if listeners < 500 {
		return nil
	}
	limit := unix.Rlimit{Cur: uint64(listeners + 100), Max: uint64(listeners + 100)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

// listen uses raw system calls because package net ignores the backlog that a
// program might want and always asks for somaxconn.
func listen(l ListenConfig) (int, error) {
	port, domain := int(l.Addr.Port()), unix.AF_INET6
	var sockaddr unix.Sockaddr = &unix.SockaddrInet6{Addr: l.Addr.Addr().As16(), Port: port}
	if l.Addr.Addr().Is4() {
		domain, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Addr: l.Addr.Addr().As4(),
			Port: port}
	}
	protocol := unix.IPPROTO_TCP
	if l.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	if l.ReusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT,
			1); err != nil {
			return -1, err
		}
	}
	if domain == unix.AF_INET6 { // dual-stack, whatever net.ipv6.bindv6only says
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY,
			0); err != nil {
			return -1, err
		}
	}
	// Accepted sockets inherit this: at the end they die with an RST at once,
	// where FINs that nobody answers would keep the namespace alive for minutes.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER,
		&unix.Linger{Onoff: 1}); err != nil {
		return -1, err
	}
	if err := l.Configure(fd); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, l.Backlog)
}

// sleeper sleeps on a thread of its own.
func sleeper() {
	runtime.LockOSThread()
	for {
		rest(time.Hour)
	}
}

// rest sleeps in nanosleep().
func rest(d time.Duration) {
	for left := unix.NsecToTimespec(int64(d)); d > 0; {
		if err := unix.Nanosleep(&left, &left); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// acceptLoop accepts on a thread of its own with blocking system calls, as a
// plain C server would, so that its kernel stack says what it waits for.
// Accepted connections stay open.
func acceptLoop(fd int, l ListenConfig, comm []byte) {
	runtime.LockOSThread()
	name := append(comm[:len(comm):len(comm)], 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0,
		0); err != nil {
		fmt.Fprintln(os.Stderr, "set thread name:", err)
	}
	for {
		_, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
			fmt.Fprintln(os.Stderr, "accept:", err)
			return
		}
		signFor(l.Busy)
		rest(l.Pause)
	}
}
