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

// serveAs is what a helper does that is a server as one meets them. Its workers have its
// input: all end with the test.
func serveAs(config helperConfig) error {
	switch config.Serve {
	case "http":
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		return serveHTTP(l)
	case "activated", "worker":
		return serveFile()
	case "activate": // like systemd: it listens and starts the server
		l, err := listenFile()
		if err != nil {
			return err
		}
		return startServerWith(l, "activated", "LISTEN_FDS=1")
	case "fork":
		l, err := listenFile()
		if err != nil {
			return err
		}
		return startServerWith(l, "worker")
	case "pass":
		return passListener()
	case "receive":
		return serveReceived()
	case "leak": // a listener to a program that has no use for it
		l, err := listenFile()
		if err != nil {
			return err
		}
		cmd := exec.Command("sleep", "1000")
		cmd.ExtraFiles = []*os.File{l}
		return cmd.Start()
	case "exec": // and execute another program when told to
		if _, err := listenFile(); err != nil {
			return err
		}
		path, err := exec.LookPath("sleep")
		if err != nil {
			return err
		}
		told := make(chan os.Signal, 1)
		signal.Notify(told, unix.SIGUSR1)
		go func() {
			<-told
			fmt.Fprintln(os.Stderr, unix.Exec(path, []string{"sleep", "1000"}, os.Environ()))
		}()
		return nil
	}
	return fmt.Errorf("a helper cannot serve as %q", config.Serve)
}

func serveHTTP(l net.Listener) error {
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	go func() { fmt.Fprintln(os.Stderr, server.Serve(l)) }()
	return nil
}

// listenFile opens a listener that exec() leaves open.
func listenFile() (*os.File, error) {
	fd, err := listen(port, 128)
	if err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	return os.NewFile(uintptr(fd), "listener"), err
}

// serveFile serves the listener it was started with, as sd_listen_fds(3) has it.
func serveFile() error {
	f := os.NewFile(firstFile, "listener")
	defer f.Close() // FileListener has its own
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	return serveHTTP(l)
}

// startServerWith starts a server that gets the file as its first one.
func startServerWith(f *os.File, serve string, env ...string) error {
	cmd := helperCommand(helperConfig{Comm: serve, Serve: serve})
	cmd.Env = append(cmd.Env, env...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Start()
}

// passListener opens a listener and passes it to another process.
func passListener() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "socketpair")
	if err := startServerWith(theirs, "receive"); err != nil {
		return err
	}
	if err := theirs.Close(); err != nil {
		return err
	}
	l, err := listenFile()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(int(l.Fd())), nil, 0); err != nil {
		return fmt.Errorf("pass the listener: %w", err)
	}
	return l.Close()
}

// serveReceived serves the listener that it is passed.
func serveReceived() error {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(firstFile, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("%d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fds[0]), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	return serveHTTP(l)
}
