// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// serveAs is what a helper does that is a server as one meets them. The servers that it
// starts have its input: all end with the test. Descriptors are numbers here, since an
// os.File is closed when nothing refers to it any more.
func serveAs(config helperConfig) error {
	switch config.Serve {
	case "http":
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		return serveHTTP(l)
	case "computing", "unhurried":
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		go acceptSlowly(l, config.Serve == "computing")
		return nil
	case "activate": // like systemd: it listens, and starts the server
		fd, err := listen(port, 128)
		if err != nil {
			return err
		}
		return startServerWith(fd, "activated", "LISTEN_FDS=1")
	case "fork":
		fd, err := listen(port, 128)
		if err != nil {
			return err
		}
		return startServerWith(fd, "worker")
	case "activated", "worker": // as sd_listen_fds(3) has it
		return serveFile(firstFile)
	case "pass": // a listener to a server
		near, far, err := socketPair()
		if err != nil {
			return err
		}
		if err := startServerWith(far, "receive"); err != nil {
			return err
		}
		return giveAway(near)
	case "receive":
		fd, err := receive(firstFile)
		if err != nil {
			return err
		}
		return serveFile(fd)
	case "flight": // a listener to itself, which it receives when told to
		near, far, err := socketPair()
		if err != nil {
			return err
		}
		onSignal(func() error {
			_, err := receive(far)
			return err
		})
		return giveAway(near)
	case "leak": // a listener to a program that has no use for it
		return leak()
	case "exec": // another program when told to, which then has the listener
		return execLater()
	}
	return fmt.Errorf("a helper cannot serve as %q", config.Serve)
}

// acceptSlowly has work to do before it accepts the next connection: much, or a little.
func acceptSlowly(l net.Listener, much bool) {
	open := make(map[net.Conn]bool)
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		open[c] = true
		busy := 4 * time.Millisecond
		if much {
			busy = 200 * time.Millisecond
		}
		computeBeforeTheNext(busy)
	}
}

// computeBeforeTheNext is a function to be found on stacks: the innermost one mostly, since what is
// shown of a stack is short.
//
//go:noinline
func computeBeforeTheNext(d time.Duration) {
	sum := uint64(1)
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range 1_000_000 {
			sum = sum*6364136223846793005 + 1442695040888963407
		}
	}
	computed = sum
}

// computed keeps the compiler from leaving the computation out.
var computed uint64

func serveHTTP(l net.Listener) error {
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	go func() { fmt.Fprintln(os.Stderr, server.Serve(l)) }()
	return nil
}

// serveFile serves a listener that another process opened.
func serveFile(fd int) error {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close() // FileListener has its own
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	return serveHTTP(l)
}

// startServerWith starts a server that gets the descriptor as its first file.
func startServerWith(fd int, serve string, env ...string) error {
	cmd := helperCommand(helperConfig{Comm: serve, Serve: serve})
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return startWith(cmd, fd)
}

func startWith(cmd *exec.Cmd, fd int) error {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(other), "descriptor")
	defer f.Close()
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() //nolint:errcheck // it is only to be reaped
	return nil
}

// onSignal does something when the test says so.
func onSignal(do func() error) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGUSR1)
	go func() {
		<-told
		if err := do(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
}

func leak() error {
	fd, err := listen(port, 128)
	if err != nil {
		return err
	}
	return startWith(exec.Command("sleep", "300"), fd)
}

func execLater() error {
	path, err := exec.LookPath("sleep")
	if err != nil {
		return err
	}
	onSignal(func() error { return unix.Exec(path, []string{"sleep", "300"}, os.Environ()) })
	fd, err := listen(port, 128)
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	return err
}

// socketPair returns two ends that a listener can be sent through.
func socketPair() (near, far int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return pair[0], pair[1], err
}

// giveAway opens a listener, sends it and closes it.
func giveAway(to int) error {
	fd, err := listen(port, 128)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(to, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("send the listener: %w", err)
	}
	return unix.Close(fd)
}

// receive receives what was given away.
func receive(from int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(from, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("receive the listener: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, fmt.Errorf("received %d control messages", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}
