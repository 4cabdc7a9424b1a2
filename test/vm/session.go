// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// session runs commands in a guest, one at a time: a line with the command goes
// in, its output comes back, then a marker line
//
//	@@<nonce> exit <status> <uptime before> <uptime after>
//
// The nonce is new for each machine, so no output can be taken for a marker.
type session struct {
	in    io.Writer
	out   io.Reader
	split *markerSplitter
}

// result is how a guest command ended.
type result struct {
	status int
	took   time.Duration // by the guest's clock
	uptime time.Duration // when it ended
}

// errGuest is a guest that did not live to answer.
var errGuest = errors.New("guest ended early")

// openSession waits for the guest's init to greet. The status of its greeting is the
// number of modules it could not insert.
func openSession(in io.Writer, out io.Reader) (*session, result, error) {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails, since Go 1.24
	s := &session{in: in, out: out, split: newMarkerSplitter(hex.EncodeToString(nonce[:]))}
	if _, err := fmt.Fprintln(in, hex.EncodeToString(nonce[:])); err != nil {
		return nil, result{}, fmt.Errorf("greet guest: %w: %w", errGuest, err)
	}
	hello, err := s.await(io.Discard)
	return s, hello, err
}

// run runs a shell script in the guest and copies its output, both streams, as it
// comes. The error is about the guest; a command that fails is a result.
func (s *session) run(script string, output io.Writer) (result, error) {
	line := base64.StdEncoding.EncodeToString([]byte(script)) + "\n"
	if _, err := io.WriteString(s.in, line); err != nil {
		return result{}, fmt.Errorf("send command: %w: %w", errGuest, err)
	}
	return s.await(output)
}

// close asks the guest to power off.
func (s *session) close() {
	_, _ = s.run("poweroff -f", io.Discard) // it answers by ending
}

func (s *session) await(output io.Writer) (result, error) {
	buf := make([]byte, 32<<10)
	var writeErr error
	emit := func(p []byte) {
		if len(p) > 0 && writeErr == nil {
			_, writeErr = output.Write(p)
		}
	}
	for {
		n, err := s.out.Read(buf)
		text, marker := s.split.feed(buf[:n])
		emit(text)
		if marker != "" {
			r, err := parseMarker(marker)
			if err == nil && writeErr != nil {
				err = fmt.Errorf("write guest output: %w", writeErr)
			}
			return r, err
		}
		if err != nil {
			emit(s.split.rest())
			if !errors.Is(err, io.EOF) {
				return result{}, fmt.Errorf("read guest output: %w: %w", errGuest,
					err)
			}
			return result{}, errGuest
		}
	}
}

// markerSplitter separates command output from marker lines, however the bytes are cut up.
type markerSplitter struct {
	prefix []byte
	held   []byte // may be the beginning of a marker
}

func newMarkerSplitter(nonce string) *markerSplitter {
	return &markerSplitter{prefix: []byte("\n@@" + nonce + " ")}
}

// feed takes more bytes and gives the output they complete and the marker after
// it, if there is one. The newline that sets a marker off is part of neither.
func (m *markerSplitter) feed(p []byte) (output []byte, marker string) {
	m.held = append(m.held, p...)
	if at := bytes.Index(m.held, m.prefix); at >= 0 {
		body := m.held[at+len(m.prefix):]
		if end := bytes.IndexByte(body, '\n'); end >= 0 {
			output, marker = bytes.Clone(m.held[:at]), string(body[:end])
			m.held = bytes.Clone(body[end+1:])
			return output, marker
		}
		return m.release(at), ""
	}
	keep := min(len(m.held), len(m.prefix)-1)
	for !bytes.HasPrefix(m.prefix, m.held[len(m.held)-keep:]) {
		keep--
	}
	return m.release(len(m.held) - keep), ""
}

func (m *markerSplitter) release(n int) []byte {
	out := bytes.Clone(m.held[:n])
	m.held = append(m.held[:0], m.held[n:]...)
	return out
}

// rest gives what was held back in vain.
func (m *markerSplitter) rest() []byte { return m.release(len(m.held)) }

// parseMarker reads "exit <status> <seconds> <seconds>".
func parseMarker(marker string) (result, error) {
	fields := strings.Fields(marker)
	if len(fields) != 4 || fields[0] != "exit" {
		return result{}, fmt.Errorf("read marker %q: want exit and three numbers", marker)
	}
	status, err := strconv.Atoi(fields[1])
	if err != nil {
		return result{}, fmt.Errorf("read marker %q: %w", marker, err)
	}
	var times [2]time.Duration
	for i, field := range fields[2:] {
		seconds, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return result{}, fmt.Errorf("read marker %q: %w", marker, err)
		}
		times[i] = time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
	}
	return result{status: status, took: times[1] - times[0], uptime: times[1]}, nil
}

// shellCommand quotes arguments for the guest's shell.
func shellCommand(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// withTimeout puts a limit on one command, so that the guest lives on to run the next.
func withTimeout(limit time.Duration, command string) string {
	return fmt.Sprintf("timeout -s KILL %d %s", max(1, int(limit.Seconds())), command)
}

var errTimeout = errors.New("time is up")

// errEmulator is a guest that trapped on a breakpoint which its kernel had
// already taken away: attaching a hook patches code by way of an int3, and QEMU's
// TCG now and then runs the old translation of it a moment too late. Seen once in
// about a hundred machines, in code that no hook of ours is near.
var errEmulator = errors.New("the emulator ran code that had been patched")

// explain replaces the error of a session with the reason the guest's end had.
func explain(ctx context.Context, err error, console string) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !errors.Is(err, errGuest):
		return err
	}
	if strings.Contains(console, "int3: 0000 [#") {
		return fmt.Errorf("%w: %w", errGuest, errEmulator)
	}
	if line, ok := findPanic(console); ok {
		return fmt.Errorf("%w: kernel panic: %s", errGuest, line)
	}
	return err
}

// findPanic finds the panic in a console log and the reason it gives.
func findPanic(console string) (string, bool) {
	for line := range strings.Lines(console) {
		if _, reason, ok := strings.Cut(line, "Kernel panic - not syncing"); ok {
			return strings.Trim(reason, ": \r\n"), true
		}
	}
	return "", false
}
