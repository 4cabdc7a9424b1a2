// SPDX-License-Identifier: Apache-2.0

package churn

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// Config is what the server does. It runs PerSecond short-lived processes, or as many as the machine
// can, each of which inherits its listener, until it ends. Some stay for a moment. Meanwhile it opens
// and closes a listener of its own, at a port that the kernel chooses.
type Config struct {
	Comm      string // its name, and that of its children until they execute their program
	Port      uint16 // of its listener, at every IPv4 address
	Backlog   int
	PerSecond int
}

// Done is what a server has done so far.
type Done struct {
	Comm      string // that its processes have once they have executed their program
	PIDs      []int  // of all its processes
	Listeners int    // opened and closed
}

// Server is a running server.
type Server struct {
	PID int

	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *json.Decoder
}

// answer is what a server says when it is ready, and whenever it is asked.
type answer struct {
	Done  Done
	Error string
}

// environment makes a re-executed binary a server; its value is a Config.
const environment = "SYNSPY_TEST_CHURN"

// Start runs this executable again as a server in the world's namespace, and returns when it listens.
func Start(w *world.World, config Config) (*Server, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"synspy-churn"}
	cmd.Env = append(os.Environ(), environment+"="+string(text))
	// The namespace's thread forks it, and lives as long as the world.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	s := &Server{cmd.Process.Pid, cmd, stdin, json.NewDecoder(stdout)}
	if _, err := s.answer(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Done asks what it has done so far.
func (s *Server) Done() (Done, error) {
	if _, err := fmt.Fprintln(s.stdin); err != nil {
		return Done{}, fmt.Errorf("ask server %d: %w", s.PID, err)
	}
	return s.answer()
}

func (s *Server) answer() (Done, error) {
	var a answer
	if err := s.answers.Decode(&a); err != nil {
		return a.Done, fmt.Errorf("server %d: %w", s.PID, err)
	}
	if a.Error != "" {
		return a.Done, fmt.Errorf("server %d: %s", s.PID, a.Error)
	}
	return a.Done, nil
}

// Close ends it. A process of its that is left ends by itself within a moment.
func (s *Server) Close() error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // reports the kill
	return err
}

// Main must be called first in main and TestMain. In an ordinary process it returns false at once. In
// a server it serves until its standard input ends, then returns true: the caller should exit.
func Main() bool {
	text, ok := os.LookupEnv(environment)
	if !ok {
		return false
	}
	answers := json.NewEncoder(os.Stdout)
	churning, err := serve(text)
	if err != nil {
		_ = answers.Encode(answer{Error: err.Error()})
		return true
	}
	_ = answers.Encode(answer{})
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		done, err := churning.report()
		a := answer{Done: done}
		if err != nil {
			a.Error = err.Error()
		}
		if answers.Encode(a) != nil {
			break
		}
	}
	return true
}

func serve(text string) (*churn, error) {
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("decode config: %w", err)
	}
	if err := os.WriteFile("/proc/self/comm", []byte(config.Comm), 0); err != nil {
		return nil, fmt.Errorf("set process name: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open listener: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(config.Port)}); err != nil {
		return nil, fmt.Errorf("bind listener: %w", err)
	}
	if err := unix.Listen(fd, config.Backlog); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return startChurn(config.PerSecond, fd, config.Comm)
}
